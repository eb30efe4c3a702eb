#!/usr/bin/python
# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Place a bundle on a host as a release of a service."""

from __future__ import annotations

DOCUMENTATION = r"""
module: model_release
short_description: Place a bundle on a model host
version_added: 0.1.0
author:
  - modelfleet contributors (@modelfleet)
description:
  - Puts a bundle from the controller where a slot can start it, under the name of its version and the first twelve
    digits of its manifest's sha256.
  - Every file is compared with the manifest on the controller before shipping, and on the host as it is written. A
    release appears whole or not at all, and one that is there already is checked, not shipped again.
  - Where O(allowed_signers) are given, the host verifies the signature itself before the release appears, over the very
    bytes that the digest is of.
  - Afterwards the oldest releases beyond O(keep) are removed, with the environments that only they used. A release
    that a slot points to, or that is in O(pinned), is never removed.
  - Of O(several) releases, every bundle is checked on the controller first. Then the host is asked once for all of
    them, and those that it lacks are shipped and placed, one after another.
options:
  service:
    description: The service that the release is for. Needed unless O(several) is given.
    type: str
  src:
    description:
      - A bundle on the controller, a folder or a tar of one.
      - Needed when O(state=present).
    type: path
  digest:
    description:
      - The sha256 that the bundle's manifest must have, on the controller and on the host.
      - When it is not given, the action plugin takes that of O(src).
    type: str
  url:
    description:
      - Where the host fetches the tar of the bundle itself, instead of being sent it. O(src) still says which it is.
      - If the host cannot, it fails. Credentials are those of root's netrc on the host.
    type: str
    default: ""
  allowed_signers:
    description: The content of a file of allowed signers, as C(ssh-keygen -Y verify) takes it.
    type: str
    default: ""
  revoked_keys:
    description: Public keys that do not count any more, a line each, or a key revocation list in base64.
    type: str
    default: ""
  signers:
    description: The principals of O(allowed_signers) that may sign this service's bundles; all, if none is named.
    type: list
    elements: str
    default: []
  gates:
    description:
      - A mapping from C(signature) to one with its C(mode). That is C(enforce) where O(allowed_signers) are given and
        C(off) otherwise.
      - The gate C(digest) is always enforced.
      - A service's whole policy may be given. The gates of other modules are passed over.
    type: dict
    default: {}
  env:
    description:
      - Name of the environment that the release runs in, as M(modelfleet.onprem.model_env) built it.
      - Needed when O(state=present).
    type: str
  keep:
    description: How many releases of the service to keep. V(0) keeps all.
    type: int
    default: 5
  pinned:
    description:
      - Releases that stay whatever O(keep) says, such as the one that serves and the one to go back to. One that is not
        on the host does no harm.
    type: list
    elements: str
    default: []
  release:
    description:
      - The release to remove, when O(state=absent).
      - When O(state=present), what O(src) is expected to be; any bundle, if it is not given.
    type: str
  size:
    description:
      - Bytes that the release will take. If they are not free, nothing is shipped.
      - The action plugin works it out from O(src).
    type: int
    default: 0
  state:
    description: With V(absent), the release is removed, unless a slot points to it.
    type: str
    choices: [present, absent]
    default: present
extends_documentation_fragment:
  - modelfleet.onprem.several
  - modelfleet.onprem.attributes
  - modelfleet.onprem.attributes.action
seealso:
  - module: modelfleet.onprem.model_env
  - module: modelfleet.onprem.model_slot
"""

EXAMPLES = r"""
- name: Place the third version of the tumour model
  modelfleet.onprem.model_release:
    service: tumour
    src: bundles/tumour-3
    env: 9c56cc51b374c3ba
    keep: 3
    pinned: [2-5e6f0a1b2c3d]

- name: Remove a release that turned out to be wrong
  modelfleet.onprem.model_release:
    service: tumour
    release: 3-0a1b2c3d4e5f
    state: absent

- name: Place the bundles of two services
  modelfleet.onprem.model_release:
    several:
      - service: tumour
        src: bundles/tumour-3
        env: 9c56cc51b374c3ba
      - service: iris
        src: bundles/iris-7.tar
        env: 9c56cc51b374c3ba
        keep: 3
"""

RETURN = r"""
service:
  description: The service.
  returned: unless O(several) is given and nothing failed
  type: str
  sample: tumour
release:
  description: The release's name.
  returned: success, unless O(several) is given
  type: str
  sample: 3-0a1b2c3d4e5f
digest:
  description: The sha256 of the bundle's manifest, when the bundle was looked at.
  returned: when O(state=present) and the release is on the host, unless O(several) is given
  type: str
  sample: 0a1b2c3d4e5f6a7b8c9d0e1f2a3b4c5d6e7f8a9b0c1d2e3f4a5b6c7d8e9f0a1b
placed:
  description: Whether the release is on the host now.
  returned: success, unless O(several) is given
  type: bool
  sample: true
gates:
  description: What the gates C(digest) and C(signature) found, of a release that is on the host or was to be placed.
  returned: when O(state=present), unless O(several) is given and nothing failed
  type: list
  elements: dict
  sample:
    - gate: signature
      where: /var/lib/modelfleet/tumour/releases/3-0a1b2c3d4e5f
      mode: enforce
      verdict: pass
      expected: a signature by release@example.com
      found: one by release@example.com, the key SHA256:mVtq0K5bZ4SZ0dO7b8X3Y9lQ3m0n4k1kq9C7V2h5ZxE
      seconds: 0.031
      details: {advice: ""}
removed:
  description: What was let go; in check mode, what would be.
  returned: success, unless O(several) is given
  type: dict
  contains:
    releases:
      description: Names of releases.
      type: list
      elements: str
      sample: [1-5e4d3c2b1a09]
    envs:
      description: Names of environments that no release uses any more.
      type: list
      elements: str
      sample: [9c56cc51b374c3ba]
several:
  description:
    - All of this for each release that was attempted, in order, with C(changed), and with C(failed) for one that could
      not be placed or removed.
    - What that one returned is there beside it, too.
  returned: when O(several) is given
  type: list
  elements: dict
  sample:
    - {"service": "tumour", "changed": true, "release": "3-0a1b2c3d4e5f", "placed": true, "gates": []}
"""

import os
import shutil
import time
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.modelfleet.onprem.plugins.module_utils._bundle import (
    BundleError,
    Manifest,
    unpack,
    verify,
)
from ansible_collections.modelfleet.onprem.plugins.module_utils._files import (
    PARTIAL,
    DiskError,
    check_space,
    clear_errors,
    flush_folder,
    make_folder,
    only_one,
    remove_folder,
    remove_partial,
    write_link,
)
from ansible_collections.modelfleet.onprem.plugins.module_utils._layout import (
    Layout,
    LayoutError,
    check_env,
    check_release,
    check_service,
    env_of,
    is_complete,
    list_envs,
    list_releases,
    pinned,
)
from ansible_collections.modelfleet.onprem.plugins.module_utils._registry import RegistryError, fetch
from ansible_collections.modelfleet.onprem.plugins.module_utils._retention import expendable, unused_envs
from ansible_collections.modelfleet.onprem.plugins.module_utils._several import (
    Options,
    Params,
    Result,
    failure,
    run,
)
from ansible_collections.modelfleet.onprem.plugins.module_utils._signature import SignatureError, Trust
from ansible_collections.modelfleet.onprem.plugins.module_utils._slot import envs_in_use
from ansible_collections.modelfleet.onprem.plugins.module_utils._trust import (
    TrustError,
    Verdict,
    check_bundle,
    trust_of,
)
from ansible_collections.modelfleet.onprem.plugins.module_utils._verdict import GateError, parse_policies

OPTIONS = Options(
    {
        "service": {"type": "str", "required": True},
        "src": {"type": "path"},
        "digest": {"type": "str"},
        "url": {"type": "str", "default": ""},
        "allowed_signers": {"type": "str", "default": ""},
        "revoked_keys": {"type": "str", "default": "", "no_log": False},
        "signers": {"type": "list", "elements": "str", "default": []},
        "gates": {"type": "dict", "default": {}},
        "env": {"type": "str"},
        "keep": {"type": "int", "default": 5},
        "pinned": {"type": "list", "elements": "str", "default": []},
        "release": {"type": "str"},
        "size": {"type": "int", "default": 0},
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    },
    rules={"required_if": [("state", "present", ["env", "release"]), ("state", "absent", ["release"])]},
)


class ReleaseError(ValueError):
    """A release cannot be placed or removed, in one line."""


@dataclass(frozen=True)
class State:
    """A service's releases on a host, by the time they were placed, each with its environment."""

    releases: Mapping[str, str | None]

    def lines(self) -> str:
        return "".join(f"{release} env {env}\n" for release, env in self.releases.items())


def read_state(layout: Layout, service: str) -> State:
    return State({release.release: release.env for release in list_releases(layout, service)})


@dataclass(frozen=True)
class Trusted:
    """What a release must be: its name, the digest if that is known, and whose signature it has to have."""

    release: str
    digest: str | None
    trust: Trust | None
    mode: str

    def check(self, bundle: Path, target: Path, read: Callable[[Path], Manifest] = verify) -> tuple[str, list[Verdict]]:
        """The digest of ``bundle``, which is at ``target`` or will be, and the verdicts on it."""
        manifest, verdicts = check_bundle(bundle, self.digest, self.trust, self.mode, str(target), read)
        if manifest.release != self.release:
            raise ReleaseError(f"{target}: expected the bundle {self.release}, found {manifest.release}")
        return manifest.digest, verdicts


def trusted(params: Params) -> Trusted:
    trust = trust_of(params["allowed_signers"], params["revoked_keys"], params["signers"])
    policies = parse_policies(params["gates"], ["signature"])
    mode = policies["signature"]["mode"] if policies else "enforce" if trust else "off"
    return Trusted(params["release"], params["digest"], trust, mode)


def wanted_state(before: State, release: str, env: str | None, keep: int, pins: set[str]) -> State:
    """The releases after ``release`` was placed, with ``keep`` left."""
    releases = {**before.releases, release: env}
    gone = expendable(list(releases), pins | {release}, keep) if keep else []
    return State({name: found for name, found in releases.items() if name not in gone})


def gone_envs(layout: Layout, service: str, before: State, after: State, needed: Set[str]) -> list[str]:
    """The environments to remove with the releases that ``after`` has no more; none that is ``needed``."""
    gone = {f"{service} {release}" for release in before.releases}
    used = {env for env, users in envs_in_use(layout).items() if set(users) - gone}
    used |= {env for env in after.releases.values() if env} | needed
    freed = {env for env in before.releases.values() if env}
    now = time.time()
    ages = {env: now - (layout.env(env) / "env.json").stat().st_mtime for env in list_envs(layout)}
    return unused_envs(ages, used, freed)


def place(
    layout: Layout, service: str, wanted: Trusted, src: Path | str, most: int, env: str
) -> tuple[str, list[Verdict]]:
    """Unpack ``src`` beside the release's place, checked file by file, and move it there; its digest and verdicts.

    ``src`` is a tar, or the address of one of at most ``most`` bytes.
    """
    release = wanted.release
    folder = layout.releases(service)
    target = layout.release(service, release)
    partial = folder / f"{PARTIAL}{release}"
    partial.mkdir()
    partial.chmod(0o755)
    fetched = partial / "bundle.tar"
    try:
        with clear_errors(folder, f"the release {release}"):
            if isinstance(src, str):
                with open(fetched, "wb") as output:
                    fetch(src, output, most)
            archive = fetched if isinstance(src, str) else src
            found = wanted.check(partial / "bundle", target, lambda bundle: unpack(archive, bundle))
            fetched.unlink(missing_ok=True)
            for inside, _folders, _files in os.walk(partial):
                os.chmod(inside, 0o755)
                flush_folder(Path(inside))
            write_link(partial / "env", str(layout.env(env)))
            if target.exists():
                remove_folder(target)
            partial.rename(target)
            flush_folder(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return found


def remove(layout: Layout, service: str, releases: list[str], envs: list[str]) -> None:
    for release in releases:
        remove_folder(layout.release(service, release))
    if envs:
        with only_one(layout.envs, "building an environment"):
            for env in envs:
                remove_folder(layout.env(env))


def ensure_present(params: Params, layout: Layout, check_mode: bool, needed: Set[str] = frozenset()) -> Result:
    """Place the release, point it to its environment, and let old ones go."""
    service, release, env = check_service(params["service"]), check_release(params["release"]), check_env(params["env"])
    folder, target = layout.releases(service), layout.release(service, release)
    if check_mode:
        return plan_present(params, layout, needed)
    if not is_complete(layout, env):
        raise ReleaseError(f"{layout.env(env)}: expected the environment of {release}, found none: run model_env first")
    make_folder(folder)
    with only_one(folder, f"placing a release of {service}"):
        remove_partial(folder)
        result = plan_present(params, layout, needed)
        if not result["placed"]:
            if params["src"] is None and not params["url"]:
                # The action plugin asks in this way whether it has to ship the bundle.
                nothing = {"releases": [], "envs": []}
                return {"changed": False, "release": release, "placed": False, "removed": nothing, "gates": []}
            src = params["url"] or Path(params["src"])
            # A tar has a few hundred bytes more for each file, and the manifest, which names them, is at most 1 MiB.
            digest, verdicts = place(layout, service, trusted(params), src, params["size"] + (8 << 20), env)
            result.update(digest=digest, gates=verdicts)
        elif env_of(target) != env:
            write_link(target / "env", str(layout.env(env)))
        remove(layout, service, **result["removed"])
    return {**result, "placed": True}


def plan_present(params: Params, layout: Layout, needed: Set[str]) -> Result:
    """What placing the release changes. ``placed`` says whether it is on the host now, undamaged."""
    service, release = params["service"], params["release"]
    before = read_state(layout, service)
    target = layout.release(service, release)
    wanted = trusted(params)
    digest, verdicts = None, []
    if release in before.releases:
        try:
            digest, verdicts = wanted.check(target / "bundle", target)
        except (ReleaseError, TrustError):
            # Damaged, or without the signature that it has to have: it is placed again.
            digest = None
    here = digest is not None
    if not here:
        check_space(target, params["size"] * (2 if params["url"] else 1), f"the release {release}")
    pins = pinned(layout, service) | {check_release(name) for name in params["pinned"]}
    after = wanted_state(before, release, params["env"], params["keep"], pins)
    releases = [name for name in before.releases if name not in after.releases]
    envs = gone_envs(layout, service, before, after, needed)
    return {
        "changed": not here or before != after or bool(envs),
        "release": release,
        "placed": here,
        "removed": {"releases": releases, "envs": envs},
        "diff": difference(service, before, after),
        "gates": verdicts,
        **({"digest": digest} if here else {}),
    }


def ensure_absent(params: Params, layout: Layout, check_mode: bool, needed: Set[str] = frozenset()) -> Result:
    """Remove the release, and its environment if nothing else uses it."""
    service, release = check_service(params["service"]), check_release(params["release"])
    before = read_state(layout, service)
    here = release in before.releases
    if here and release in pinned(layout, service):
        raise ReleaseError(
            f"{layout.release(service, release)}: expected a release that no slot points to, found that one does: "
            "deploy another release to that slot first"
        )
    after = State({name: env for name, env in before.releases.items() if name != release})
    envs = gone_envs(layout, service, before, after, needed) if here else []
    if here and not check_mode:
        with only_one(layout.releases(service), f"placing a release of {service}"):
            remove(layout, service, [release], envs)
    return {
        "changed": here,
        "release": release,
        "placed": here and check_mode,
        "removed": {"releases": [release] if here else [], "envs": envs},
        "diff": difference(service, before, after),
    }


def difference(service: str, before: State, after: State) -> dict[str, str]:
    header = f"releases of {service}"
    return {"before_header": header, "after_header": header, "before": before.lines(), "after": after.lines()}


def attempt(params: Params, layout: Layout, check_mode: bool, needed: Set[str]) -> Result:
    """What came of placing or removing the release; environments that others ``needed`` stay."""
    ensure = ensure_present if params["state"] == "present" else ensure_absent
    try:
        return ensure(params, layout, check_mode, needed)
    except TrustError as error:
        return failure(error, gates=error.verdicts)
    except (
        BundleError,
        DiskError,
        GateError,
        LayoutError,
        RegistryError,
        ReleaseError,
        SignatureError,
        OSError,
    ) as error:
        return failure(error)


def main() -> None:
    module = AnsibleModule(**OPTIONS.of_module(), supports_check_mode=True)
    # What a service lets go may be what another one, which is placed after it, is about to use.
    needed = {each["env"] for each in module.params["several"] or () if each.get("env")}
    result = run(OPTIONS, module.params, lambda params: attempt(params, Layout(), module.check_mode, needed))
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
