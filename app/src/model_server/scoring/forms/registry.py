# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The compiled forms there are, in the order in which they are tried: mostly the fastest first."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from model_server.bundle.contract import Contract
from model_server.scoring.forms import onnx, program
from model_server.scoring.forms.compile_linear import compile_linear
from model_server.scoring.forms.compile_trees import compile_trees
from model_server.scoring.scorer import Predictor

NATIVE = "native"


@dataclass(frozen=True)
class Form:
    """``compile`` gives files of a model, each for where those before it are not equal, or raises a NotCompiledError.

    ``load`` makes a predictor of a file. ``path`` is where a bundle has that, and ``packages`` are what
    ``load`` imports beside the model server's own.
    """

    compile: Callable[[Any, Contract], Iterable[bytes]]
    load: Callable[[bytes, Contract], Predictor]
    path: str
    packages: tuple[str, ...] = ()


def _one_file(compile_: Callable[[Any, Contract], bytes]) -> Callable[[Any, Contract], Iterable[bytes]]:
    return lambda model, contract: (compile_(model, contract),)


FORMS = {
    "linear": Form(_one_file(compile_linear), program.read_program, "compiled/linear.npz"),
    "trees": Form(_one_file(compile_trees), program.read_program, "compiled/trees.npz"),
    "onnx": Form(onnx.compile_onnx, onnx.load_compiled_onnx, "compiled/model.onnx", packages=("onnxruntime",)),
}
