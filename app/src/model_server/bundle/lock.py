# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which packages a model needs, in the exact versions of the environment that it is bundled in."""

from __future__ import annotations

import _compat_pickle
import importlib.metadata
import pickletools
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from model_server.bundle.manifest import BundleError


def lock(modules: Iterable[str], packages: Iterable[str], where: str) -> str:
    """The text of ``requirements.lock``: a pin for ``packages``, the packages of ``modules``, and all they require."""
    return encode_lock(pins_of({*packages, *distributions(modules, where)}, where))


def encode_lock(pins: Mapping[str, str]) -> str:
    """The text of ``requirements.lock``."""
    return "".join(f"{name}=={pins[name]}\n" for name in sorted(pins))


def pins_of(packages: Iterable[str], where: str) -> dict[str, str]:
    """The installed versions of ``packages`` and of all that they require."""
    pins: dict[str, str] = {}
    wanted = set(packages)
    while wanted:
        name = wanted.pop()
        if name not in pins:
            try:
                found = importlib.metadata.distribution(name)
            except importlib.metadata.PackageNotFoundError:
                raise BundleError(f"{where}: needs the package {name}, which is not installed") from None
            pins[name] = found.version
            wanted |= required(found)
    return pins


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

    def name_module(module: str, attribute: str | None) -> None:
        found.add(module)
        pushed.append(_SUBIMPORT if f"{module}.{attribute}" == _SUBIMPORT else None)

    def push(value: str | None) -> None:
        if value and pushed and pushed[-1] == _SUBIMPORT:
            found.add(value)
        pushed.append(value)

    for opcode, found_argument, position in pickletools.genops(pickled):
        name = opcode.name
        argument: Any = found_argument
        if name in ("GLOBAL", "INST"):
            module, _space, attribute = argument.partition(" ")
            # Pickles of protocol 2 and before have Python 2's names for modules of the standard library.
            name_module(_compat_pickle.IMPORT_MAPPING.get(module, module), attribute)
        elif name == "STACK_GLOBAL":
            # Its module and attribute are the two values pushed before it, as text or out of the memo.
            module = pushed[-2] if len(pushed) > 1 else None
            if module is None:
                raise BundleError(f"byte {position} of the pickle names a module in a way that no pickler writes")
            name_module(module, pushed[-1])
        elif name == "MEMOIZE":
            memo[len(memo)] = pushed[-1] if pushed else None
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            memo[argument] = pushed[-1] if pushed else None
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            push(memo.get(argument))
        elif opcode.stack_after:
            push(argument if isinstance(argument, str) else None)
    return found


_SUBIMPORT = "cloudpickle.cloudpickle.subimport"
"""The function by which cloudpickle imports a module that code in the pickle refers to; its name is pushed next."""


def required(found: importlib.metadata.Distribution) -> set[str]:
    """The names of the packages that a package needs here, without its extras."""
    wanted = (Requirement(text) for text in found.requires or [])
    return {
        canonicalize_name(requirement.name)
        for requirement in wanted
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""})
    }
