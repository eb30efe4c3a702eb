# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which packages a model needs, in the exact versions of the environment that it is bundled in."""

from __future__ import annotations

import _compat_pickle
import importlib.metadata
import pickletools
import sys
from collections.abc import Iterable
from functools import cache
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from model_server.bundle.manifest import BundleError


def lock(modules: Iterable[str], packages: Iterable[str], where: str) -> str:
    """The text of ``requirements.lock``: a pin for ``packages``, the packages of ``modules``, and all they require."""
    pins: dict[str, str] = {}
    wanted = {*packages, *distributions(modules, where)}
    while wanted:
        name = wanted.pop()
        if name not in pins:
            try:
                found = importlib.metadata.distribution(name)
            except importlib.metadata.PackageNotFoundError:
                raise BundleError(f"{where}: needs the package {name}, which is not installed") from None
            pins[name] = found.version
            wanted |= _required(found)
    return "".join(f"{name}=={pins[name]}\n" for name in sorted(pins))


def distributions(modules: Iterable[str], where: str) -> set[str]:
    """The names of the distributions that provide ``modules``, apart from those of the standard library."""
    providers = _providers()
    found: set[str] = set()
    for module in sorted(set(modules)):
        package = module.partition(".")[0]
        if package in sys.stdlib_module_names:
            continue
        if package not in providers:
            raise BundleError(f"{where}: the model needs the module {module}, which no installed package provides")
        found.update(canonicalize_name(name) for name in providers[package])
    return found


# Reads what every installed package consists of, which takes long and does not change meanwhile.
_providers = cache(importlib.metadata.packages_distributions)


def modules_of(pickled: bytes) -> set[str]:
    """The modules that a pickle imports when it is loaded, read from its opcodes without loading it."""
    found: set[str] = set()
    pushed: list[str | None] = []
    memo: dict[int, str | None] = {}
    for opcode, found_argument, position in pickletools.genops(pickled):
        name = opcode.name
        argument: Any = found_argument
        if name in ("GLOBAL", "INST"):
            module = argument.partition(" ")[0]
            # Pickles of protocol 2 and before have Python 2's names for modules of the standard library.
            found.add(_compat_pickle.IMPORT_MAPPING.get(module, module))
            pushed.append(None)
        elif name == "STACK_GLOBAL":
            # Its module and attribute are the two values pushed before it, as text or out of the memo.
            if len(pushed) < 2 or pushed[-2] is None:
                raise BundleError(f"byte {position} of the pickle names a module in a way that no pickler writes")
            found.add(pushed[-2])
            pushed.append(None)
        elif name == "MEMOIZE":
            memo[len(memo)] = pushed[-1] if pushed else None
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            memo[argument] = pushed[-1] if pushed else None
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            pushed.append(memo.get(argument))
        elif opcode.stack_after:
            pushed.append(argument if isinstance(argument, str) else None)
    return found


def _required(found: importlib.metadata.Distribution) -> set[str]:
    required = (Requirement(text) for text in found.requires or [])
    return {
        canonicalize_name(requirement.name)
        for requirement in required
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""})
    }
