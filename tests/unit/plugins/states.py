# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""States of hosts and balancers, as model_info and lb_info return them: one service on two hosts."""

from __future__ import annotations

from typing import Any

from ansible_collections.modelfleet.onprem.plugins.plugin_utils.rollout import Release
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.service import parse_services

GROUPS = {"model_hosts": ["m1", "m2"], "left": ["m1"], "right": ["m2"]}
SERVICE = parse_services({"tumour": {"port": 8101, "batches": [1, "100%"]}}, GROUPS)["tumour"]
ONE = Release("1-aaaaaaaaaaaa", "1", "a" * 64)
TWO = Release("2-bbbbbbbbbbbb", "2", "b" * 64)
THREE = Release("3-cccccccccccc", "3", "c" * 64)
HOSTS = ("m1", "m2", "m3")
PYTHON = {"tag": "cp311", "machine": "x86_64", "glibc": "2.36", "version": "3.11.2"}


def slot_state(release: Release, slot: Any = "blue", **changed: Any) -> dict[str, Any]:
    return {
        "release": release.name,
        "env": "e1",
        "settings": {"MODEL_BUNDLE": "/somewhere", "MODEL_DIGEST": "0a1b2c3d4e5f", **SERVICE.settings(slot)},
        "limits": SERVICE.limits(),
        "unit": "active",
        "started": {"release": release.name, "env": "e1"},
        "ready": True,
        **changed,
    }


def host_state(*releases: Release, blue: Any = None, green: Any = None, **changed: Any) -> dict[str, Any]:
    listed = [{"release": it.name, "version": it.version, "digest": it.digest, "env": "e1"} for it in releases]
    service = {"releases": listed, "slots": {"blue": blue, "green": green}}
    return {"python": PYTHON, "services": {"tumour": service}, "envs": ["e1"] if releases else [], **changed}


def balancer_state(
    slot: str = "blue", history: Any = (), admin: Any = None, down: Any = (), share: int = 0, **releases: Release
) -> dict[str, Any]:
    def pool(name: str) -> dict[str, Any]:
        servers = {
            host: {
                "status": "DOWN" if (name, host) in down else "UP",
                "admin": (admin or {}).get((name, host), "ready"),
            }
            for host in HOSTS
        }
        return {"release": releases[name].name if name in releases else None, "servers": servers}

    pools = {"blue": pool("blue"), "green": pool("green")}
    return {
        "services": {"tumour": {"slot": slot, "share": share, "pools": pools, "history": [it.name for it in history]}}
    }
