# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""model_release, against a host in a temporary folder."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.modelfleet.onprem.plugins.module_utils import _files
from ansible_collections.modelfleet.onprem.plugins.module_utils._bundle import pack, read_manifest
from ansible_collections.modelfleet.onprem.plugins.module_utils._layout import Layout, env_of, list_releases
from ansible_collections.modelfleet.onprem.plugins.modules import model_release

OLDER_ENV = "fedcba9876543210"


@pytest.fixture
def place(
    run_module: Callable[..., dict[str, Any]], make_bundle: Callable[..., Path], make_env: Callable[..., str]
) -> Callable[..., dict[str, Any]]:
    """Place a version of the tumour model, packed as the action plugin ships it."""
    env = make_env()

    def run(version: str, check_mode: bool = False, **options: Any) -> dict[str, Any]:
        bundle = make_bundle(version)
        archive = bundle.with_suffix(".tar")
        release = pack(bundle, archive).release
        params = {"service": "tumour", "release": release, "src": str(archive), "env": env, **options}
        return run_module(model_release, params, check_mode)

    return run


def names(layout: Layout) -> list[str]:
    return [release.version for release in list_releases(layout, "tumour")]


def test_a_bundle_becomes_a_release_with_its_environment(place: Callable[..., Any], layout: Layout) -> None:
    result = place("3")
    folder = layout.release("tumour", result["release"])
    assert result["changed"]
    assert result["placed"]
    assert result["digest"] == read_manifest(folder / "bundle").digest
    assert env_of(folder) == "0123456789abcdef"
    assert sorted(os.listdir(layout.releases("tumour"))) == [result["release"]]


def test_nothing_in_a_release_is_writable_for_others(place: Callable[..., Any], layout: Layout) -> None:
    old = os.umask(0)
    try:
        folder = layout.release("tumour", place("3")["release"])
    finally:
        os.umask(old)
    modes = {path.stat().st_mode & 0o022 for path in [folder, *(folder / "bundle").rglob("*"), folder / "bundle"]}
    assert modes == {0}


def test_a_release_that_is_there_is_left_alone(place: Callable[..., Any], run_module: Callable[..., Any]) -> None:
    release = place("3")["release"]
    again = {"service": "tumour", "release": release, "env": "0123456789abcdef"}
    result = run_module(model_release, again)
    assert (result["changed"], result["placed"]) == (False, True)


def test_without_a_bundle_a_missing_release_is_reported_as_not_placed(
    run_module: Callable[..., Any], make_env: Callable[..., str]
) -> None:
    result = run_module(model_release, {"service": "tumour", "release": "3-0a1b2c3d4e5f", "env": make_env()})
    assert (result["changed"], result["placed"]) == (False, False)


def test_a_damaged_release_is_placed_again(place: Callable[..., Any], layout: Layout, tmp_path: Path) -> None:
    release = place("3")["release"]
    model = layout.release("tumour", release) / "bundle/model.pkl"
    model.write_bytes(b"A MODEL")
    archive = tmp_path / "bundles/3.tar"
    result = model_release.ensure_present(
        {
            "service": "tumour",
            "release": release,
            "src": str(archive),
            "env": "0123456789abcdef",
            "keep": 5,
            "pinned": [],
            "size": 0,
        },
        layout,
        False,
    )
    assert result["changed"]
    assert model.read_bytes() == b"a model"


def test_check_mode_says_what_would_be_placed_and_changes_nothing(place: Callable[..., Any], layout: Layout) -> None:
    result = place("3", check_mode=True, env=OLDER_ENV)
    assert (result["changed"], result["placed"]) == (True, False)
    assert result["diff"]["after"] == f"{result['release']} env {OLDER_ENV}\n"
    assert not layout.releases("tumour").exists()


def test_the_oldest_releases_beyond_keep_go(place: Callable[..., Any], layout: Layout) -> None:
    for version in ("1", "2", "3"):
        result = place(version, keep=2)
    assert names(layout) == ["2", "3"]
    assert [name[0] for name in result["removed"]["releases"]] == ["1"]


def test_a_release_that_a_slot_points_to_stays(place: Callable[..., Any], layout: Layout) -> None:
    first = place("1")["release"]
    layout.slot("tumour", "blue").symlink_to(f"releases/{first}")
    for version in ("2", "3"):
        place(version, keep=1)
    assert names(layout) == ["1", "3"]


def test_bad_releases_never_push_out_one_that_is_pinned(place: Callable[..., Any], layout: Layout) -> None:
    pinned = [place(version)["release"] for version in ("1", "2")]
    for version in ("3", "4", "5"):
        result = place(version, keep=2, pinned=[*pinned, "9-0a1b2c3d4e5f"])
    assert names(layout) == ["1", "2", "5"]
    assert [name[0] for name in result["removed"]["releases"]] == ["4"]


def test_what_is_pinned_must_be_the_name_of_a_release(place: Callable[..., Any]) -> None:
    assert place("3", pinned=["2"])["msg"] == (
        "release: expected a version, a dash and 12 hexadecimal digits, found '2'"
    )


def test_an_environment_goes_with_its_last_release(
    place: Callable[..., Any], make_env: Callable[..., str], layout: Layout
) -> None:
    make_env(OLDER_ENV)
    place("1", env=OLDER_ENV)
    result = place("2", keep=1)
    assert result["removed"]["envs"] == [OLDER_ENV]
    assert not layout.env(OLDER_ENV).exists()


def test_an_environment_that_a_slot_started_in_stays(
    place: Callable[..., Any], make_env: Callable[..., str], layout: Layout
) -> None:
    make_env(OLDER_ENV)
    release = place("1", env=OLDER_ENV)["release"]
    layout.settings("tumour", "blue").parent.mkdir(parents=True)
    layout.settings("tumour", "blue").write_text(f'MODEL_ENV="{layout.env(OLDER_ENV)}"\n')
    result = model_release.ensure_present(
        {
            "service": "tumour",
            "release": release,
            "src": None,
            "env": "0123456789abcdef",
            "keep": 5,
            "pinned": [],
            "size": 0,
        },
        layout,
        False,
    )
    assert result["changed"]
    assert layout.env(OLDER_ENV).exists()


@pytest.mark.parametrize("size", [10**18])
def test_without_space_nothing_is_left_behind(place: Callable[..., Any], layout: Layout, size: int) -> None:
    result = place("3", size=size)
    assert result["failed"]
    assert "MB free for the release 3-" in result["msg"]
    assert os.listdir(layout.releases("tumour")) == []


def test_a_disk_that_fills_up_meanwhile_is_one_clear_line(
    place: Callable[..., Any], layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(model_release, "unpack", full)
    result = place("3")
    assert "no space left for the release 3-" in result["msg"]
    assert os.listdir(layout.releases("tumour")) == []


def test_another_bundle_than_the_one_expected_is_refused(place: Callable[..., Any], layout: Layout) -> None:
    result = place("3", release="4-0a1b2c3d4e5f")
    assert "expected the bundle 4-0a1b2c3d4e5f, found 3-" in result["msg"]
    assert os.listdir(layout.releases("tumour")) == []


def test_a_release_needs_its_environment(place: Callable[..., Any]) -> None:
    assert "expected the environment of 3-" in place("3", env=OLDER_ENV)["msg"]


def test_a_release_can_be_removed(place: Callable[..., Any], run_module: Callable[..., Any], layout: Layout) -> None:
    params = {"service": "tumour", "release": place("3")["release"], "state": "absent"}
    assert run_module(model_release, params, check_mode=True)["changed"]
    assert names(layout) == ["3"]
    assert run_module(model_release, params)["removed"]["envs"] == ["0123456789abcdef"]
    assert names(layout) == []
    assert not run_module(model_release, params)["changed"]


def test_a_release_in_a_slot_is_not_removed(
    place: Callable[..., Any], run_module: Callable[..., Any], layout: Layout
) -> None:
    release = place("3")["release"]
    layout.slot("tumour", "green").symlink_to(f"releases/{release}")
    result = run_module(model_release, {"service": "tumour", "release": release, "state": "absent"})
    assert "expected a release that no slot points to" in result["msg"]


def test_two_runs_at_once_take_turns(tmp_path: Path) -> None:
    with (
        _files.only_one(tmp_path, "placing a release of tumour"),
        pytest.raises(_files.DiskError, match="another run has been placing a release of tumour for more than 0 s"),
        _files.only_one(tmp_path, "placing a release of tumour", seconds=0),
    ):
        pass
