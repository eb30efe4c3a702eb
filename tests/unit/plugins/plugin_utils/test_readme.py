# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""README's table of a service's keys has every key, and the default that the code has."""

from __future__ import annotations

import re
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.service import _KEYS, Service

README = Path(__file__).parents[4] / "README.md"
IN_WORDS = ("hosts", "model", "gates")
"""Keys whose default README says in words of its own."""


def rows() -> dict[str, str]:
    """The keys that README has, with what it says their defaults are. A row may be of several keys."""
    section = README.read_text().partition("## Variables")[2].partition("\nA host may have")[0]
    found = {}
    for keys, default in re.findall(r"^\| (`.+?) \| (.+?) \|", section, re.MULTILINE):
        names = re.findall(r"`(\w+)`", keys)
        values = yaml.safe_load(f"[{default.replace('`', '')}]") if len(names) > 1 else [default.strip("`")]
        found.update(zip(names, values, strict=True))
    return found


def default_of(key: str) -> Any:
    field = {field.name: field for field in fields(Service)}[key]
    value = field.default if field.default_factory is MISSING else field.default_factory()
    return list(value) if isinstance(value, tuple) else None if value == "" else value


def test_every_key_of_a_service_is_in_the_readme() -> None:
    assert sorted(rows()) == sorted(["port", "hosts", "canary", *_KEYS])


@pytest.mark.parametrize("key", sorted(set(_KEYS) - set(IN_WORDS)))
def test_the_readme_says_the_default(key: str) -> None:
    found = rows()[key]
    said = yaml.safe_load(found) if isinstance(found, str) else found
    assert (None if said == "none" else said) == default_of(key)
