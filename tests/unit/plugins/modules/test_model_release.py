# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""model_release, against a host in a temporary folder."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from ansible_collections.modelfleet.onprem.plugins.module_utils import _files
from ansible_collections.modelfleet.onprem.plugins.module_utils._bundle import pack, read_manifest
from ansible_collections.modelfleet.onprem.plugins.module_utils._layout import Layout, env_of, list_releases
from ansible_collections.modelfleet.onprem.plugins.modules import model_release
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.policy import parse_policy

from tests.unit.plugins.signing import Person, make_person
from tests.unit.plugins.web_registry import WebRegistry

OLDER_ENV = "fedcba9876543210"
UNSIGNED = {"digest": None, "url": "", "allowed_signers": "", "revoked_keys": "", "signers": [], "gates": {}}


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


@pytest.fixture
def two(
    run_module: Callable[..., Any], make_bundle: Callable[..., Path], make_env: Callable[..., str]
) -> Callable[..., dict[str, Any]]:
    """Place a release of each of two services."""
    env = make_env()
    archives = {"tumour": make_bundle("3").with_suffix(".tar"), "iris": make_bundle("7").with_suffix(".tar")}
    releases = {service: pack(archive.with_suffix(""), archive).release for service, archive in archives.items()}

    def run(check_mode: bool = False, first: Mapping[str, Any] = MappingProxyType({}), **both: Any) -> dict[str, Any]:
        several = [
            {"service": service, "release": releases[service], "src": str(archive), "env": env, **both}
            for service, archive in archives.items()
        ]
        several[0].update(first)
        result: dict[str, Any] = run_module(model_release, {"several": several}, check_mode)
        return result

    return run


def test_the_releases_of_two_services_are_placed_in_one_run(two: Callable[..., Any], layout: Layout) -> None:
    planned = two(check_mode=True)
    assert [(each["changed"], each["placed"]) for each in planned["several"]] == [(True, False), (True, False)]
    assert not layout.services.exists()
    # The host is asked whether it has them.
    asked = two(src=None)
    assert (asked["changed"], [each["placed"] for each in asked["several"]]) == (False, [False, False])
    placed = two()
    assert [(each["service"], each["release"][0], each["placed"]) for each in placed["several"]] == [
        ("tumour", "3", True),
        ("iris", "7", True),
    ]
    assert [diff["after_header"] for diff in placed["diff"]] == ["releases of tumour", "releases of iris"]
    assert [path.name for path in layout.services.glob("*/releases/*")] == [
        each["release"] for each in placed["several"]
    ]
    again = two(src=None)
    assert (again["changed"], [each["placed"] for each in again["several"]]) == (False, [True, True])


def test_after_one_that_cannot_be_placed_no_other_is(two: Callable[..., Any], layout: Layout) -> None:
    result = two(first={"digest": "0" * 64})
    assert (result["failed"], result["service"], short(result)) == (True, "tumour", [("digest", "fail")])
    assert f"manifest.json: expected sha256 {'0' * 64}, found " in result["msg"]
    assert [(each["service"], each["failed"]) for each in result["several"]] == [("tumour", True)]
    assert not layout.releases("iris").exists()


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
            **UNSIGNED,
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


def test_an_environment_stays_that_the_next_service_of_the_run_needs(
    two: Callable[..., Any], place: Callable[..., Any], make_env: Callable[..., str], layout: Layout
) -> None:
    make_env(OLDER_ENV)
    place("1", env=OLDER_ENV)
    placed = two(first={"env": "0123456789abcdef", "keep": 1}, env=OLDER_ENV)
    assert [len(each["removed"]["releases"]) for each in placed["several"]] == [1, 0]
    assert layout.env(OLDER_ENV).exists()


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
            **UNSIGNED,
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


@pytest.fixture
def alice(tmp_path: Path) -> Person:
    return make_person("alice", tmp_path)


@pytest.fixture
def ship(
    run_module: Callable[..., dict[str, Any]], make_bundle: Callable[..., Path], make_env: Callable[..., str]
) -> Callable[..., dict[str, Any]]:
    """Place version 3 out of a tar that ``change`` may have changed on its way."""
    bundle, env = make_bundle("3"), make_env()

    def run(
        sign: Callable[[Path], None] | None = None, change: Callable[[bytes], bytes] | None = None, **options: Any
    ) -> dict[str, Any]:
        if sign:
            sign(bundle)
        archive = bundle.with_suffix(".tar")
        manifest = pack(bundle, archive)
        if change:
            archive.write_bytes(change(archive.read_bytes()))
        params = {"service": "tumour", "release": manifest.release, "digest": manifest.digest, "env": env}
        return run_module(model_release, {**params, "src": str(archive), **options})

    return run


def short(result: dict[str, Any]) -> list[tuple[str, str]]:
    return [(verdict["gate"], verdict["verdict"]) for verdict in result["gates"]]


def test_a_signed_bundle_is_placed_with_its_signature(ship: Callable[..., Any], layout: Layout, alice: Person) -> None:
    for again in (False, True):
        result = ship(alice.sign, allowed_signers=alice.line())
        target = layout.release("tumour", result["release"])
        assert (result["changed"], result["placed"]) == (not again, True)
        assert short(result) == [("digest", "pass"), ("signature", "pass")]
        digest, signature = result["gates"]
        assert (digest["where"], digest["mode"], digest["found"]) == (
            str(target),
            "enforce",
            f"sha256 {result['digest']}",
        )
        assert (signature["expected"], signature["mode"]) == ("a signature by alice", "enforce")
        assert (target / "bundle/manifest.json.sig").is_file()


def test_without_signers_no_signature_is_asked_for(ship: Callable[..., Any]) -> None:
    assert short(ship()) == [("digest", "pass"), ("signature", "off")]


def test_a_bundle_without_a_trusted_signature_is_not_placed(
    ship: Callable[..., Any], layout: Layout, alice: Person, tmp_path: Path
) -> None:
    bob = make_person("bob", tmp_path)
    for sign, found in ((None, "none: have it signed"), (bob.sign, "one by the key SHA256:")):
        result = ship(sign, allowed_signers=alice.line())
        assert result["failed"]
        assert result["msg"].startswith(str(layout.releases("tumour")))
        assert f": gate signature: expected a signature by alice, found {found}" in result["msg"]
        assert "\n" not in result["msg"]
        assert short(result) == [("digest", "pass"), ("signature", "fail")]
        assert os.listdir(layout.releases("tumour")) == []


def test_a_revoked_key_and_another_principal_do_not_count_on_a_host(ship: Callable[..., Any], alice: Person) -> None:
    revoked = ship(alice.sign, allowed_signers=alice.line(), revoked_keys=alice.public)
    assert "which is revoked: whoever has that key is no longer trusted" in revoked["msg"]
    other = ship(allowed_signers=alice.line(), signers=["carol"])
    assert "expected a signature by carol, found one by alice, the key SHA256:" in other["msg"]


def test_a_gate_that_warns_places_the_release_and_one_that_is_off_does_not_look(
    ship: Callable[..., Any], alice: Person
) -> None:
    warned = ship(allowed_signers=alice.line(), gates={"signature": {"mode": "warn"}})
    assert (warned["placed"], short(warned)) == (True, [("digest", "pass"), ("signature", "warn")])
    off = ship(allowed_signers=alice.line(), gates={"signature": {"mode": "off"}})
    assert (off["placed"], short(off)) == (True, [("digest", "pass"), ("signature", "off")])
    assert ship(gates={"signature": {"mode": "loud"}})["msg"] == (
        "gates.signature: expected a mode, one of enforce, warn, off, found 'loud'"
    )
    nobody = ship(gates={"signature": {"mode": "enforce"}})
    assert "found nobody named: name them in the service's allowed_signers" in nobody["msg"]


def test_of_a_whole_policy_the_signature_alone_counts(ship: Callable[..., Any], alice: Person) -> None:
    whole = parse_policy({"signature": {"mode": "warn"}}, signed=True)
    assert short(ship(allowed_signers=alice.line(), gates=whole)) == [("digest", "pass"), ("signature", "warn")]
    # Without it, it is as ever.
    others = {name: gate for name, gate in whole.items() if name != "signature"}
    assert ship(allowed_signers=alice.line(), gates=others)["failed"]
    assert "found 'speed'" in ship(gates={"speed": {"mode": "warn"}})["msg"]


def test_a_byte_changed_after_shipping_is_refused_on_the_host(
    ship: Callable[..., Any], layout: Layout, alice: Person
) -> None:
    result = ship(alice.sign, lambda tar: tar.replace(b"a model", b"a modem"), allowed_signers=alice.line())
    assert f"model.pkl: expected sha256 {hashlib.sha256(b'a model').hexdigest()}, found" in result["msg"]
    assert short(result) == [("digest", "fail")]
    assert os.listdir(layout.releases("tumour")) == []


def test_another_bundle_under_the_same_name_is_refused(ship: Callable[..., Any]) -> None:
    result = ship(digest="0" * 64)
    assert f"manifest.json: expected sha256 {'0' * 64}, found " in result["msg"]
    assert short(result) == [("digest", "fail")]


def test_a_release_that_was_placed_unsigned_gets_its_signature_when_one_is_asked_for(
    ship: Callable[..., Any], layout: Layout, alice: Person
) -> None:
    release = ship()["release"]
    asked = ship(allowed_signers=alice.line(), src=None)
    assert (asked["changed"], asked["placed"]) == (False, False)
    result = ship(alice.sign, allowed_signers=alice.line())
    assert (result["changed"], short(result)) == (True, [("digest", "pass"), ("signature", "pass")])
    assert (layout.release("tumour", release) / "bundle/manifest.json.sig").is_file()


@pytest.fixture
def web() -> Iterator[WebRegistry]:
    server = WebRegistry()
    yield server
    server.close()


def test_a_host_fetches_a_bundle_itself(
    ship: Callable[..., Any], layout: Layout, alice: Person, web: WebRegistry, tmp_path: Path
) -> None:
    alice.sign(tmp_path / "bundles/3")
    pack(tmp_path / "bundles/3", tmp_path / "3.tar")
    web.files["/tumour/3.tar"] = (tmp_path / "3.tar").read_bytes()
    result = ship(src=None, url=f"{web.address}/tumour/3.tar", allowed_signers=alice.line())
    assert (result["placed"], short(result)) == (True, [("digest", "pass"), ("signature", "pass")])
    assert sorted(os.listdir(layout.release("tumour", result["release"]))) == ["bundle", "env"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "3.tar: expected status 200 to GET, found 404 Not Found"),
        (b"A model", "model.pkl: expected sha256 "),
        (b"x" * (9 << 20), "3.tar: expected at most 8388608 bytes, found more"),
    ],
    ids=["nothing", "another byte", "too much"],
)
def test_a_host_that_cannot_fetch_says_so_and_is_sent_nothing(
    ship: Callable[..., Any], layout: Layout, web: WebRegistry, tmp_path: Path, content: bytes | None, message: str
) -> None:
    if content is not None:
        pack(tmp_path / "bundles/3", tmp_path / "3.tar")
        web.files["/tumour/3.tar"] = (tmp_path / "3.tar").read_bytes().replace(b"a model", content)
    result = ship(url=f"{web.address}/tumour/3.tar")
    assert result["failed"]
    assert message in result["msg"]
    assert os.listdir(layout.releases("tumour")) == []
