# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Modules of a user's own that a bundle ships, for the classes that its model is made of."""

from __future__ import annotations

import ast
import sys
from collections.abc import Mapping
from types import ModuleType

from model_server.bundle.manifest import BundleError

FOLDER = "modules/"
"""Where they lie in a bundle: ``modules/features.py`` is the module ``features``."""


def module_names(paths: Mapping[str, bytes]) -> dict[str, str]:
    """The files of ``paths`` that are modules, by the name of the module."""
    return {path[len(FOLDER) : -len(".py")]: path for path in paths if path.startswith(FOLDER) and path.endswith(".py")}


def run_modules(files: Mapping[str, bytes], where: str) -> None:
    """Make modules of ``files``, so that a pickle finds them: of these bytes, never of a file."""
    waiting = {name: ast.parse(files[path], path) for name, path in module_names(files).items()}
    while waiting:
        # One after those of the others that it imports.
        ready = [name for name, tree in waiting.items() if not imports(tree) & (waiting.keys() - {name})]
        if not ready:
            raise BundleError(f"{where}: modules that import each other in a circle: {', '.join(sorted(waiting))}")
        for name in ready:
            module = ModuleType(name)
            module.__file__ = f"{FOLDER}{name}.py"
            sys.modules[name] = module
            exec(compile(waiting.pop(name), module.__file__, "exec"), vars(module))


def imports(tree: ast.AST) -> set[str]:
    """The top-level names of the modules that are imported anywhere in ``tree``."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            found.add(node.module.partition(".")[0])
    return found
