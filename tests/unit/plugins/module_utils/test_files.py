# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is free on a host's file systems."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.modelfleet.onprem.plugins.module_utils._files import (
    DiskError,
    check_space,
    free_bytes,
    on_one_disk,
)


def test_folders_of_one_file_system_share_what_is_free(tmp_path: Path) -> None:
    assert on_one_disk(tmp_path / "not/there/yet", tmp_path)
    assert not on_one_disk(Path("/proc/not/there"), tmp_path)


def test_what_is_free_for_a_folder_that_is_not_there_yet_is_that_of_its_place(tmp_path: Path) -> None:
    assert free_bytes(tmp_path / "not/there/yet") > 0


def test_too_little_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(
        DiskError, match=rf"^{tmp_path}: expected 1000000000000\.0 MB free for a model, found [0-9.]+ MB$"
    ):
        check_space(tmp_path, 10**18, "a model")
