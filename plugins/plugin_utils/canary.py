# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The canary of a service: how it is defined, the steps that it goes through, and what follows from what was seen.

Pure. What is wrong with a definition is a ``ValueError`` of one line that names the key, what was expected and found.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from ansible_collections.modelfleet.onprem.plugins.module_utils._route import ALL, show_share
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.judge import (
    Histogram,
    Limits,
    Policy,
    Side,
    judge,
)

Outcome = Literal["wait", "pass", "fail", "promote"]

LONGEST_WINDOW = 120
"""Seconds that a module waits on a balancer. A longer step has several windows: no connection idles for long."""

_TIME = re.compile(r"([1-9][0-9]*)(s|m|h)")
_UNITS = {"s": 1, "m": 60, "h": 3600}
_HEADER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
# They stand in HAProxy's configuration as they are.
_USER = re.compile(r"[A-Za-z0-9@._:+=/-]{1,128}")
MOST_USERS = 1000
MOST_EXTENSIONS = 20


@dataclass(frozen=True)
class Step:
    """``share`` in hundredths of a percent for ``seconds``."""

    share: int
    seconds: int


@dataclass(frozen=True)
class Canary:
    """How a service's canary goes.

    ``by`` says what a user is told by: ``header`` or ``cookie``, whose name is ``name``, or ``address``. ``only`` are
    the users who alone are in it, at every step. ``extend`` is how many times a step is lengthened by itself while the
    judge cannot tell; what follows then is ``inconclusive``.
    """

    steps: tuple[Step, ...] = (Step(100, 60), Step(500, 120), Step(2500, 300))
    by: str = "address"
    name: str = ""
    without_key: str = "never"
    only: tuple[str, ...] = ()
    force_header: str | None = None
    extend: int = 2
    inconclusive: str = "fail"
    policy: Policy = field(default_factory=Policy)

    @property
    def looks(self) -> int:
        """How often the judge is asked at most."""
        return len(self.steps) * (1 + self.extend)

    def windows(self, step: Step) -> list[dict[str, Any]]:
        """The windows of a step with all of its extensions: ``judged`` are those at whose end the judge is asked."""
        count = math.ceil(step.seconds / LONGEST_WINDOW)
        seconds = [step.seconds // count + (number < step.seconds % count) for number in range(count)]
        once = [{"seconds": each, "judged": number == count, "last": False} for number, each in enumerate(seconds, 1)]
        windows = [dict(window) for _time in range(1 + self.extend) for window in once]
        windows[-1]["last"] = True
        return windows

    def plan(self) -> dict[str, Any]:
        """What the playbooks go through, as plain data."""
        steps = [
            {"share": step.share, "shown": show_share(step.share), "windows": self.windows(step)} for step in self.steps
        ]
        return {
            "steps": steps,
            "inconclusive": self.inconclusive,
            "looks": self.looks,
            "policy": asdict(self.policy),
        }

    def rules(self, service: str) -> dict[str, Any]:
        """What the balancer tells users by. The salt keeps the same users from being the canaries of every service."""
        return {
            "by": self.by,
            "name": self.name,
            "without_key": self.without_key,
            "only": list(self.only),
            "force_header": self.force_header,
            "salt": zlib.crc32(service.encode()),
        }


@dataclass(frozen=True)
class Decision:
    """What follows from a window: ``wait`` for the next one, or else. ``line`` says why to a reader."""

    outcome: Outcome
    line: str
    figures: Mapping[str, Any]
    findings: Sequence[Mapping[str, Any]] = ()


def parse_canary(where: str, found: object) -> Canary:
    """The canary that the inventory defines."""
    if not isinstance(found, Mapping):
        raise ValueError(f"{where}: expected a mapping, found {found!r}")
    _check_known(
        where, found, ("steps", "by", "without_key", "only", "force_header", "extend", "inconclusive", "judge")
    )
    canary = Canary()
    if "steps" in found:
        canary = replace(canary, steps=_parse_steps(f"{where}.steps", found["steps"]))
    if "by" in found:
        kind, _colon, name = str(found["by"]).partition(":")
        if found["by"] != "address" and not (kind in ("header", "cookie") and _HEADER.fullmatch(name)):
            raise ValueError(f"{where}.by: expected header:NAME, cookie:NAME or address, found {found['by']!r}")
        canary = replace(canary, by=kind, name=name)
    for key, choices in (("without_key", ("chance", "never")), ("inconclusive", ("pass", "fail"))):
        if key in found and found[key] not in choices:
            raise ValueError(f"{where}.{key}: expected {' or '.join(choices)}, found {found[key]!r}")
    canary = replace(canary, **{key: found[key] for key in ("without_key", "inconclusive") if key in found})
    if "only" in found:
        canary = replace(canary, only=_parse_users(f"{where}.only", found["only"]))
    header = found.get("force_header")
    if header is not None and not _HEADER.fullmatch(str(header)):
        raise ValueError(f"{where}.force_header: expected the name of a header or null, found {header!r}")
    extend = found.get("extend", canary.extend)
    if not isinstance(extend, int) or isinstance(extend, bool) or not 0 <= extend <= MOST_EXTENSIONS:
        raise ValueError(f"{where}.extend: expected a whole number from 0 to {MOST_EXTENSIONS}, found {extend!r}")
    policy = _parse_policy(f"{where}.judge", found.get("judge", {}))
    return replace(canary, force_header=None if header is None else str(header), extend=extend, policy=policy)


def make_policy(found: Mapping[str, Any]) -> Policy:
    """The policy out of plain data, such as ``Canary.plan`` gives."""
    limits = {name: Limits(**found[name]) for name in ("errors", "latency", "predictions")}
    return Policy(**limits, confidence=found["confidence"])


def add_up(windows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The sides of several windows as one, each as ``lb_watch`` returns them."""
    total: dict[str, Any] = {}
    for window in windows:
        for name, found in window.items():
            side = total.setdefault(name, {"requests": 0, "errors": 0, "latency": {}, "predictions": {}})
            for key in ("requests", "errors"):
                side[key] += found[key]
            for key in ("latency", "predictions"):
                for cell, count in found[key].items():
                    side[key][cell] = side[key].get(cell, 0) + count
    return total


def decide(
    plan: Mapping[str, Any],
    window: Mapping[str, Any],
    watched: Mapping[str, Mapping[str, Any]],
    before: Mapping[str, Any] | None = None,
) -> Decision:
    """What follows from a window.

    ``plan`` is that of the canary, ``watched`` what ``lb_watch`` returned on each balancer, and ``before`` the figures
    of the windows before it in the same step. ValueError, in one line, if both sides cannot be compared.
    """
    silent = [name for name, found in watched.items() if "sides" not in found]
    if silent or not watched:
        reasons = [f"{name} ({watched[name].get('msg') or 'no answer'})" for name in silent]
        raise ValueError(f"expected figures of every balancer, found none of {', '.join(reasons) or 'any'}")
    found = list(watched.values())
    figures = add_up([*([before] if before else []), _together(found)])
    words = {each["control"]: each["by"] for each in found}
    if "abort" in words:
        return Decision("fail", f"aborted by {words['abort']}", figures)
    failing = [f"{name}: {each['failing']}" for name, each in watched.items() if each["failing"]]
    if failing:
        return Decision("fail", "; ".join(failing), figures)
    if "promote" in words:
        return Decision("promote", f"promoted by {words['promote']}", figures)
    if not window["judged"]:
        return Decision("wait", "the step goes on", figures)
    sides = {name: _side(figures[name], figures) for name in ("baseline", "canary")}
    verdict = judge(sides["baseline"], sides["canary"], make_policy(plan["policy"]).over(plan["looks"]))
    findings = [asdict(finding) for finding in verdict.findings]
    line = "; ".join(verdict.lines)
    if verdict.outcome != "inconclusive":
        return Decision(verdict.outcome, line, figures, findings)
    if not window["last"]:
        return Decision("wait", line, figures, findings)
    passed = plan["inconclusive"] == "pass"
    return Decision("pass" if passed else "fail", line, figures, findings)


def _together(watched: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One window: every balancer counts the requests that it sent, and each has read the same model servers."""
    sides: dict[str, Any] = {}
    for name in ("baseline", "canary"):
        seen = [found["sides"][name] for found in watched]
        fullest = max(seen, key=lambda side: side["latency"].get("+Inf", 0))
        sides[name] = {**fullest, **{key: sum(side[key] for side in seen) for key in ("requests", "errors")}}
    return sides


def _side(found: Mapping[str, Any], figures: Mapping[str, Any]) -> Side:
    """A side as the judge takes it. A side that had no request has the edges of the other one."""
    if found["requests"] > found["errors"] and not found["latency"]:
        raise ValueError(
            f"expected metrics of the model servers, found none of those that gave {found['requests']} answers: "
            "with API keys a service needs metrics_port"
        )
    edges = {edge for side in figures.values() for edge in side["latency"]} or {"1.0", "+Inf"}
    ordered = sorted(edges, key=float)
    latency = Histogram(tuple(map(float, ordered)), tuple(found["latency"].get(edge, 0) for edge in ordered))
    reported = any(side["predictions"] for side in figures.values())
    return Side(found["requests"], found["errors"], latency, found["predictions"] if reported else None)


def _check_known(where: str, found: Mapping[Any, Any], known: Sequence[str]) -> None:
    unknown = sorted(set(map(str, found)) - set(known))
    if unknown:
        raise ValueError(f"{where}: expected the keys {', '.join(known)}, found {unknown[0]!r}")


def _parse_steps(where: str, found: object) -> tuple[Step, ...]:
    if not isinstance(found, (list, tuple)) or not found:
        raise ValueError(f"{where}: expected a list such as [{{share: 1, for: 60s}}, {{share: 100}}], found {found!r}")
    steps: list[Step] = []
    for number, each in enumerate(found, 1):
        place = f"{where}, step {number}"
        if not isinstance(each, Mapping):
            raise ValueError(f"{place}: expected a share and how long it is held, found {each!r}")
        _check_known(place, each, ("share", "for"))
        share = _parse_share(place, each.get("share"))
        if steps and share <= steps[-1].share:
            raise ValueError(f"{place}: expected more than {show_share(steps[-1].share)}, found {show_share(share)}")
        if share == ALL:
            # From then on the release is no canary but the one that serves, which is what every canary ends with.
            if number < len(found) or "for" in each or number == 1:
                raise ValueError(
                    f"{place}: expected 100 % at the end of other steps alone, and without for, found {each!r}"
                )
            continue
        steps.append(Step(share, _parse_time(place, each.get("for"))))
    return tuple(steps)


def _parse_share(where: str, found: object) -> int:
    """Hundredths of a percent of a share in percent."""
    if isinstance(found, (int, float)) and not isinstance(found, bool) and 0.01 <= found <= 100:
        share = round(found * 100)
        if math.isclose(share, found * 100, abs_tol=1e-6):
            return share
    raise ValueError(f"{where}: expected a share from 0.01 to 100 percent in hundredths, found {found!r}")


def _parse_time(where: str, found: object) -> int:
    match = _TIME.fullmatch(str(found))
    if match:
        return int(match[1]) * _UNITS[match[2]]
    if isinstance(found, int) and not isinstance(found, bool) and found > 0:
        return found
    raise ValueError(f"{where}: expected for in seconds, or as 60s, 2m or 1h, found {found!r}")


def _parse_users(where: str, found: object) -> tuple[str, ...]:
    if not isinstance(found, (list, tuple)) or not 0 < len(found) <= MOST_USERS:
        raise ValueError(f"{where}: expected a list of 1 to {MOST_USERS} users, found {found!r}")
    for user in found:
        if not isinstance(user, (str, int)) or not _USER.fullmatch(str(user)):
            raise ValueError(f"{where}: expected users of letters, digits and @._:+=/-, found {user!r}")
    return tuple(map(str, found))


def _parse_policy(where: str, found: object) -> Policy:
    policy = Policy()
    if not isinstance(found, Mapping):
        raise ValueError(f"{where}: expected a mapping, found {found!r}")
    _check_known(where, found, ("errors", "latency", "predictions", "confidence"))
    changed: dict[str, Any] = {}
    try:
        for name, limits in found.items():
            if name == "confidence":
                changed[name] = _number(limits)
                continue
            if not isinstance(limits, Mapping):
                raise ValueError(f"{name}: expected a mapping, found {limits!r}")
            _check_known(name, limits, ("level", "tolerance", "margin"))
            changed[name] = replace(getattr(policy, name), **{key: _number(value) for key, value in limits.items()})
        return replace(policy, **changed)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _number(found: object) -> float:
    if isinstance(found, (int, float)) and not isinstance(found, bool):
        return float(found)
    raise ValueError(f"expected a number, found {found!r}")
