# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every variable of a role is explained once, and its default is the one that is documented."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

README = Path(__file__).parents[3] / "README.md"
ROLES = sorted((Path(__file__).parents[3] / "roles").iterdir())


def documented(role: Path) -> dict[str, Any]:
    """The options of all entry points of a role, by name."""
    specs = yaml.safe_load((role / "meta/argument_specs.yml").read_text())["argument_specs"]
    return {name: option for spec in specs.values() for name, option in (spec.get("options") or {}).items()}


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_documented_defaults_are_the_defaults(role: Path) -> None:
    defaults = yaml.safe_load((role / "defaults/main.yml").read_text()) or {}
    assert {name: option["default"] for name, option in documented(role).items() if "default" in option} == defaults


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_a_variable_is_of_use(role: Path) -> None:
    parts = [path for folder in ("tasks", "templates", "handlers") for path in (role / folder).glob("*")]
    text = "".join(path.read_text() for path in parts)
    assert [name for name in documented(role) if name not in text] == []


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_the_readme_names_no_variable_that_is_not_there(role: Path) -> None:
    found = re.findall(rf"\b{role.name}_[a-z_]+", (role / "README.md").read_text() + README.read_text())
    assert set(found) <= set(documented(role))


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_variables_have_their_roles_name_and_a_default_or_are_required(role: Path) -> None:
    for name, option in documented(role).items():
        assert name.startswith(f"{role.name}_")
        assert "required" in option or "default" in option
        assert option["description"]
