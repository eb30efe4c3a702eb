from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.wheelhouse import (
    Target,
    WheelhouseError,
    cache_folder,
    find_server,
    gather,
    merge_locks,
)

ROOT = Path(__file__).resolve().parents[4]


def test_the_bundles_pins_go_before_the_servers() -> None:
    assert merge_locks("numpy==2.0\nPackaging==1\n", "packaging==2  # why\nflask==3\n") == (
        "flask==3\nnumpy==2.0\nPackaging==1\n"
    )


def test_wheels_of_older_platforms_are_taken_and_newer_ones_are_not() -> None:
    platforms = Target("cp311", "x86_64", "2.28").platforms()
    assert platforms[0] == "manylinux_2_28_x86_64"
    assert {"manylinux2014_x86_64", "manylinux_2_17_x86_64", "linux_x86_64"} <= set(platforms)
    assert not any("2_29" in name for name in platforms)


def test_the_python_version_is_read_from_its_tag() -> None:
    assert Target("cp313", "x86_64", "2.41").python == "3.13"


def test_the_cache_follows_the_users_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/c")
    assert cache_folder() == Path("/c/modelfleet")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def test_the_servers_wheel_is_built_once_from_its_source(cache: Path, tmp_path: Path) -> None:
    first = find_server(ROOT / "app", cache)
    again = find_server(ROOT / "app", cache)
    elsewhere = find_server(ROOT / "app", tmp_path)
    assert first == again
    assert first.wheel.parent == again.wheel.parent
    assert "gunicorn==" in first.lock
    assert elsewhere.sha256 == first.sha256, "the same source gives the same wheel on any controller"


def test_a_wheel_that_is_not_the_servers_is_refused(tmp_path: Path) -> None:
    wheel = tmp_path / "other-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("other.py", "")
    with pytest.raises(WheelhouseError, match=r"server: expected a wheel with model_server/requirements\.lock"):
        find_server(wheel, tmp_path)


def test_a_folder_that_is_no_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WheelhouseError, match="server: expected a wheel or the model server's source folder, found"):
        find_server(tmp_path, tmp_path)


def test_the_wheels_of_another_python_are_fetched_once(cache: Path) -> None:
    server = find_server(ROOT / "app", cache)
    folder = gather("e1", "markupsafe==3.0.2\n", server, Target("cp313", "x86_64", "2.41"), cache)
    names = {path.name.split("-")[0]: path.name for path in folder.glob("*.whl")}
    assert set(names) == {"MarkupSafe" if "MarkupSafe" in names else "markupsafe", "modelfleet_model_server"}
    assert "cp313" in next(name for key, name in names.items() if key.lower() == "markupsafe")
    assert (folder / "env.lock").read_text() == "markupsafe==3.0.2\n"
    stamp = (folder / "env.lock").stat().st_mtime_ns
    assert gather("e1", "markupsafe==3.0.2\n", server, Target("cp313", "x86_64", "2.41"), cache) == folder
    assert (folder / "env.lock").stat().st_mtime_ns == stamp


def test_a_pin_that_is_nowhere_is_named_and_leaves_nothing(cache: Path) -> None:
    server = find_server(ROOT / "app", cache)
    with pytest.raises(WheelhouseError, match=r"controller: uv tool run ended with 1: .*markupsafe==0\.0\.0"):
        gather("e2", "markupsafe==0.0.0\n", server, Target("cp311", "x86_64", "2.36"), cache)
    assert not list((cache / "wheels").glob("e2*"))
