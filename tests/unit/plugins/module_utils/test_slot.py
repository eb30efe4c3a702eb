# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a slot starts with, as systemd's files and back."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from ansible_collections.modelfleet.onprem.plugins.module_utils._layout import (
    Layout,
    LayoutError,
    check_release,
    check_service,
    list_releases,
)
from ansible_collections.modelfleet.onprem.plugins.module_utils._slot import (
    is_release,
    listening_address,
    parse_limits,
    parse_settings,
    render_limits,
    render_settings,
)


@pytest.mark.parametrize("value", ["2", "", "a b", 'say "hi"', "back\\slash", "$HOME `id`", "a=b", "é"])
def test_settings_come_back_as_they_were_written(value: str) -> None:
    assert parse_settings(render_settings({"X": value, "A": "1"})) == {"X": value, "A": "1"}


@pytest.mark.parametrize("value", ["a b", 'say "hi"', "back\\slash", "$HOME `id`"])
def test_settings_are_quoted_as_a_shell_reads_them(value: str, tmp_path: Path) -> None:
    """systemd.exec(5): an EnvironmentFile follows the shell's quoting."""
    path = tmp_path / "settings.env"
    path.write_text(render_settings({"X": value}))
    command = ["sh", "-c", f'. {path}; printf %s "$X"']
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == value


def test_limits_come_back_without_what_follows_from_settings() -> None:
    text = render_limits({"TasksMax": "256", "MemoryMax": "1G"}, {"GRACEFUL_TIMEOUT": "30"})
    assert text == "[Service]\nMemoryMax=1G\nTasksMax=256\nTimeoutStopSec=45\n"
    assert parse_limits(text) == {"MemoryMax": "1G", "TasksMax": "256"}


@pytest.mark.parametrize(
    ("bind", "address"),
    [
        ("0.0.0.0:8101", "127.0.0.1:8101"),
        (":8101", "127.0.0.1:8101"),
        ("[::]:8101", "[::1]:8101"),
        ("10.0.0.5:8101", "10.0.0.5:8101"),
    ],
)
def test_a_slot_is_asked_on_its_own_host(bind: str, address: str) -> None:
    assert listening_address({"BIND": bind}) == address


def test_without_a_setting_a_slot_is_asked_where_the_server_listens_by_default() -> None:
    assert listening_address({}) == "127.0.0.1:8000"


@pytest.mark.parametrize(
    ("digest", "same"), [("0a1b2c3d4e5f" + 52 * "0", True), ("0a1b2c3d4e5f", True), ("0a1b", False), (None, False)]
)
def test_a_digest_is_compared_with_a_releases_name(digest: str | None, same: bool) -> None:
    assert is_release(digest, "3-0a1b2c3d4e5f") is same


@pytest.mark.parametrize("name", ["", "Tumour", "1st", "a" * 41, "../x", "a b", "tumour\n"])
def test_a_service_has_a_plain_name(name: str) -> None:
    with pytest.raises(LayoutError, match="service: expected up to 40 lower-case letters"):
        check_service(name)


@pytest.mark.parametrize("name", ["", "3", "3-xyz", "a/b-0a1b2c3d4e5f", "3-0a1b2c3d4e5f/..", "-0a1b2c3d4e5f"])
def test_a_release_has_a_version_and_a_digest(name: str) -> None:
    with pytest.raises(LayoutError, match="release: expected a version, a dash and 12 hexadecimal digits"):
        check_release(name)


def test_only_whole_releases_are_listed(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    for name in (".partial-3-0a1b2c3d4e5f", "notes", "2.0-0a1b2c3d4e5f"):
        layout.release("tumour", name).mkdir(parents=True)
    assert [(found.release, found.version) for found in list_releases(layout, "tumour")] == [
        ("2.0-0a1b2c3d4e5f", "2.0")
    ]
