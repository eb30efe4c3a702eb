# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A trial, in a process of its own as on a host."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from model_server.bundle.build import write


class Calls:
    """Pickles as a call that is made when the pickle is loaded."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


def told(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The document that a trial ended with."""
    document: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return document


@pytest.fixture
def try_(bundle: Path) -> Callable[..., Any]:
    """Try the bundle with other files in it, with the model itself and not a compiled form; the process that ended."""

    def run(digest: str = "", python: str | None = None, **files: bytes) -> subprocess.CompletedProcess[str]:
        names = {"model": "model.pkl", "lock": "requirements.lock"}
        contents = {path: (bundle / path).read_bytes() for path in (*names.values(), "contract.json", "golden.json")}
        contents.update({names[name]: data for name, data in files.items()})
        tried = bundle.with_name("tried")
        write(tried, contents, name="size", version="3", model_format="pickle", model_path="model.pkl")
        if python:
            manifest = json.loads((tried / "manifest.json").read_text())
            (tried / "manifest.json").write_text(json.dumps({**manifest, "python": python}))
        environment = {**os.environ, "MODEL_BUNDLE": str(tried), "MODEL_SERVICE": "size", "MODEL_DIGEST": digest}
        command = [sys.executable, "-m", "model_server.trial"]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)

    return run


def test_a_good_bundle_says_what_it_took(try_: Callable[..., Any]) -> None:
    found = told(try_())
    assert (found["environment"], found["load"]) == (None, None)
    assert found["rows"] > 0
    assert found["seconds"] > 0
    assert found["peak"] > found["answering"] >= 0
    assert found["packages"]["numpy"]["found"] == found["packages"]["numpy"]["expected"]
    assert found["python"]["found"].startswith(found["python"]["expected"])


def test_what_the_model_prints_is_not_the_document(try_: Callable[..., Any], bundle: Path) -> None:
    program = f"import pickle\nprint('{{}}')\nmodel = pickle.loads({(bundle / 'model.pkl').read_bytes()!r})"
    done = try_(model=pickle.dumps(Calls(exec, program)))
    # exec gives None, which predicts nothing.
    assert told(done)["load"] == "the model failed with AttributeError"
    assert "{}" in done.stderr


def test_another_bundle_than_was_placed_is_not_loaded(try_: Callable[..., Any]) -> None:
    # It would end the process, which would leave no document.
    found = told(try_(digest="0a1b2c3d4e5f", model=pickle.dumps(Calls(os._exit, 0))))
    assert "manifest.json: expected sha256 0a1b2c3d4e5f, found " in found["load"]
    assert "packages" not in found


@pytest.mark.parametrize(
    ("lock", "words"),
    [
        (b"numpy==1.0\n", "numpy: expected 1.0, found "),
        (b"no-such-package==2\nnumpy==1.0\n", "no-such-package: expected 2, found none installed; numpy: expected 1.0"),
    ],
)
def test_another_environment_is_told_before_anything_is_loaded(
    try_: Callable[..., Any], lock: bytes, words: str
) -> None:
    found = told(try_(lock=lock))
    assert found["environment"].startswith(words)
    assert "seconds" not in found


def test_a_pickle_of_another_scikit_learn_is_of_another_environment(try_: Callable[..., Any], bundle: Path) -> None:
    model = pickle.loads((bundle / "model.pkl").read_bytes())
    with mock.patch("sklearn.base.__version__", "1.0.2"):
        found = told(try_(model=pickle.dumps(model)))
    assert "expected scikit-learn 1.0.2, which it was pickled with" in found["environment"]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (Calls(divmod, 1, 0), "model.pkl cannot be loaded: ZeroDivisionError"),
        (Calls(exec, "raise MemoryError"), "model.pkl cannot be loaded: MemoryError"),
        (Calls(exec, "raise SystemExit(0)"), "model.pkl cannot be loaded: SystemExit: 0"),
    ],
)
def test_what_a_pickle_raises_is_told(try_: Callable[..., Any], call: Calls, words: str) -> None:
    assert words in told(try_(model=pickle.dumps(call)))["load"]


def test_one_that_ends_the_process_leaves_what_was_known_before(try_: Callable[..., Any]) -> None:
    done = try_(model=pickle.dumps(Calls(os._exit, 0)))
    assert done.returncode == 0
    assert set(told(done)) == {"environment", "load", "python", "packages"}


def test_with_an_older_python_it_is_tried_all_the_same(try_: Callable[..., Any]) -> None:
    done = try_(python="3.99")
    before, found = map(json.loads, done.stdout.splitlines())
    words = f"Python: expected 3.99 or newer, found 3.{sys.version_info.minor}"
    assert (before["environment"], found["environment"], found["load"]) == (words, words, None)
    assert found["rows"] > 0
    assert "seconds" not in before


def test_with_an_older_python_other_packages_are_told_too(try_: Callable[..., Any]) -> None:
    found = told(try_(python="3.99", lock=b"numpy==1.0\n"))
    assert found["environment"].startswith("Python: expected 3.99 or newer, found ")
    assert "; numpy: expected 1.0, found " in found["environment"]
    assert (found["load"], "seconds" in found) == (None, False)
