# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A module's options for one service and for several, and the result of both."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

import pytest
from ansible_collections.modelfleet.onprem.plugins.module_utils import _several
from ansible_collections.modelfleet.onprem.plugins.module_utils._several import (
    Options,
    OptionsError,
    at_once,
    in_turn,
    run,
)

OPTIONS = Options(
    {
        "service": {"type": "str", "required": True},
        "slot": {"type": "str", "choices": ["blue", "green"]},
        "seconds": {"type": "int", "default": 60},
        "state": {"type": "str", "choices": ["started", "stopped"], "default": "stopped"},
    },
    rules={"required_if": [("state", "started", ["slot"])]},
)
TUMOUR = {"service": "tumour", "slot": "blue"}
IRIS = {"service": "iris", "slot": "green"}


def several(*each: Mapping[str, Any]) -> dict[str, Any]:
    return {**dict.fromkeys(OPTIONS.arguments), "seconds": 60, "state": "stopped", "several": list(each)}


def test_each_of_several_has_the_defaults_and_the_types_of_one() -> None:
    alone = {**TUMOUR, "seconds": 60, "state": "stopped"}
    assert OPTIONS.read({**alone, "several": None}) == [alone]
    assert OPTIONS.read(several(TUMOUR, {**IRIS, "seconds": "5"})) == [alone, {**alone, **IRIS, "seconds": 5}]
    assert OPTIONS.read(several()) == []


def test_what_is_null_is_as_if_it_were_not_given() -> None:
    (options,) = OPTIONS.read(several({"service": "tumour", "slot": None, "seconds": None}))
    assert options == {"service": "tumour", "slot": None, "seconds": 60, "state": "stopped"}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"slot": "blue"}, "missing required arguments: service"),
        ({"service": None}, "missing required arguments: service"),
        ({"service": "iris", "slot": "red"}, "value of slot must be one of: blue, green, got: red"),
        ({"service": "iris", "state": "started"}, "state is started but all of the following are missing: slot"),
        ({"service": "iris", "colour": "blue"}, "expected some of service, slot, seconds, state, found 'colour'"),
        ({"service": "iris", "several": []}, "expected some of service, slot, seconds, state, found 'several'"),
    ],
)
def test_what_is_wrong_with_one_of_several_is_a_line_that_says_which(entry: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionsError) as error:
        OPTIONS.read(several(TUMOUR, entry))
    assert str(error.value) == f"several[1]: {message}"


def test_nothing_is_done_if_the_options_of_one_are_wrong() -> None:
    done: list[Any] = []
    result = run(OPTIONS, several(TUMOUR, {}), lambda params: done.append(params) or {})
    message = "several[1]: missing required arguments: service"
    assert (result, done) == ({"failed": True, "changed": False, "msg": message}, [])


def do(params: Mapping[str, Any]) -> dict[str, Any]:
    """Work that fails for the service iris."""
    if params["service"] == "iris":
        return {"failed": True, "changed": False, "msg": "no", "log": ["because"]}
    return {"changed": params["seconds"] > 0, "diff": {"after": params["service"]}, "address": "here"}


def test_the_result_of_one_is_as_it_is_with_its_service_and_its_slot() -> None:
    one = {"slot": None, "seconds": 60, "state": "stopped", "several": None}
    tumour = {"changed": True, "diff": {"after": "tumour"}, "address": "here", "service": "tumour"}
    assert run(OPTIONS, {**one, "service": "tumour"}, do) == tumour
    failed = {"failed": True, "changed": False, "msg": "no", "log": ["because"], **IRIS}
    assert run(OPTIONS, {**one, **IRIS}, do) == failed


def test_the_results_of_several_are_in_their_order() -> None:
    assert run(OPTIONS, several({"service": "b", "seconds": 0}, {**TUMOUR, "service": "a"}), do) == {
        "changed": True,
        "several": [
            {"changed": False, "address": "here", "service": "b"},
            {"changed": True, "address": "here", "service": "a", "slot": "blue"},
        ],
        "diff": [{"after": "b"}, {"after": "a"}],
    }
    assert run(OPTIONS, several(), do) == {"changed": False, "several": []}


@pytest.mark.parametrize(("order", "attempted"), [(in_turn, 2), (at_once, 3)], ids=["in turn", "at once"])
def test_the_first_that_fails_is_the_failure_of_all(order: Any, attempted: int) -> None:
    result = run(OPTIONS, several(TUMOUR, IRIS, {"service": "last"}), do, order)
    assert (result["failed"], result["msg"], result["log"], result["service"], result["slot"]) == (
        *(True, "no", ["because"]),
        *("iris", "green"),
    )
    assert result["changed"]
    assert [(each["service"], each.get("failed", False)) for each in result["several"]] == [
        ("tumour", False),
        ("iris", True),
        ("last", False),
    ][:attempted]


def test_as_many_are_done_at_once_as_there_are_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_several.os, "cpu_count", lambda: 2)
    two = threading.Barrier(2, timeout=10)
    counting = threading.Lock()
    running, most = 0, 0

    def wait(params: Mapping[str, Any]) -> dict[str, Any]:
        nonlocal running, most
        with counting:
            running += 1
            most = max(most, running)
        # Others would have begun by then.
        time.sleep(0.05)
        two.wait()
        with counting:
            running -= 1
        return {"changed": False, "for": params["service"]}

    results = at_once([{"service": name} for name in "abcd"], wait)
    assert ([result["for"] for result in results], most) == (list("abcd"), 2)


def test_what_is_asked_for_of_one_service_keeps_its_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_several.os, "cpu_count", lambda: 4)
    began: list[str] = []

    def wait(params: Mapping[str, Any]) -> dict[str, Any]:
        began.append(params["slot"])
        time.sleep(0.05 if params["slot"] == "blue" else 0)
        began.append(params["slot"])
        return {"changed": False, "slot": params["slot"]}

    each = [{"service": "tumour", "slot": slot} for slot in ("blue", "green")]
    assert [result["slot"] for result in at_once(each, wait)] == ["blue", "green"]
    assert began == ["blue", "blue", "green", "green"]
