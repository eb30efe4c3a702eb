# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""model_probe, against a real HTTP server."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.modelfleet.onprem.plugins.modules import model_probe

DIGEST = "0a1b2c3d4e5f" + 52 * "0"


def predict(body: Any) -> dict[str, Any]:
    """A model that adds up a row."""
    sums = [sum(row) for row in body["instances"]]
    answer: dict[str, Any] = {"predictions": sums}
    if body.get("probabilities"):
        answer["probabilities"] = [[0.25, 0.75] for _ in sums]
    return answer


@pytest.fixture
def golden() -> dict[str, Any]:
    return {
        "tolerance": {"relative": 1e-6, "absolute": 1e-9},
        "instances": [[0.5, 1.0], [2.0, 0.25]],
        "predictions": [1.5, 2.25],
        "probabilities": None,
    }


@pytest.fixture
def probe(
    run_module: Callable[..., Any], model_server: Any, golden: dict[str, Any], tmp_path: Path
) -> Callable[..., Any]:
    """Run model_probe against a server that has version 3 of the tumour model."""
    model_server.be_ready(digest=DIGEST)
    model_server.answers["/predict"] = (200, predict)

    def run(**options: Any) -> Any:
        path = tmp_path / "golden.json"
        path.write_text(json.dumps(golden))
        params = {
            "address": model_server.address,
            "service": "tumour",
            "version": "3",
            "digest": DIGEST,
            "golden": str(path),
            "timeout": 2,
        }
        return run_module(model_probe, {**params, **options})

    return run


def verdicts(result: dict[str, Any]) -> dict[str, str]:
    return {gate["gate"]: gate["verdict"] for gate in result["gates"]}


def test_a_good_release_passes(probe: Callable[..., Any]) -> None:
    result = probe()
    assert verdicts(result) == {"ready": "pass", "version": "pass", "golden": "pass"}
    assert (result["changed"], "diff" in result) == (False, False)


@pytest.mark.parametrize(
    ("options", "put"),
    [
        ({"max_latency_ms": 1000}, ["ready", "version", "golden", "latency"]),
        ({"max_latency_ms": 1000, "gates": ["latency", "ready"]}, ["latency", "ready"]),
        ({"max_latency_ms": 0, "gates": ["golden"]}, ["golden"]),
    ],
    ids=["with a limit, also its gate", "each once, in the order asked for", "0 is no limit"],
)
def test_a_gate_is_put_when_it_is_named_or_its_limit_is_given(
    probe: Callable[..., Any], options: dict[str, Any], put: list[str]
) -> None:
    assert verdicts(probe(**options)) == dict.fromkeys(put, "pass")


def test_check_mode_asks_too(probe: Callable[..., Any], model_server: Any) -> None:
    assert probe(_ansible_check_mode=True)["gates"][2]["verdict"] == "pass"
    assert [path for path, _body in model_server.asked] == ["/v2/health/ready", "/v2/health/ready", "/predict"]


def test_the_first_digits_of_a_digest_are_enough(probe: Callable[..., Any]) -> None:
    assert verdicts(probe(digest=DIGEST[:12]))["version"] == "pass"


def test_a_server_that_is_not_ready_gets_no_other_question(probe: Callable[..., Any], model_server: Any) -> None:
    model_server.answers["/v2/health/ready"] = (503, {"ready": False, "detail": "the model is loading"})
    result = probe()
    where = f"{model_server.address}/v2/health/ready"
    assert result["msg"] == f"gate ready: {where}: expected ready for tumour, found status 503 (the model is loading)"
    assert verdicts(result) == {"ready": "fail", "version": "not run", "golden": "not run"}
    assert [path for path, _body in model_server.asked] == ["/v2/health/ready"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"service": "other"}, "gate ready: .*: expected ready for other, found ready for tumour"),
        ({"version": "4"}, "gate version: .*: expected version 4, digest 0a1b.*, found version 3, digest 0a1b"),
        ({"digest": "f" * 64, "version": None}, "gate version: .*: expected digest ffff.*, found digest 0a1b"),
    ],
)
def test_another_model_does_not_pass(probe: Callable[..., Any], options: dict[str, Any], words: str) -> None:
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(probe(**options)["msg"])


def test_other_answers_to_golden_rows_do_not_pass(
    probe: Callable[..., Any], golden: dict[str, Any], model_server: Any
) -> None:
    golden["predictions"] = [1.5, 2.75]
    message = probe()["msg"]
    assert message.startswith(f"gate golden: {model_server.address}/predict: expected the answers to 2 golden rows")
    assert "row 1: expected 2.75, found 2.25" in message


def test_an_answer_within_the_tolerance_is_the_same(probe: Callable[..., Any], golden: dict[str, Any]) -> None:
    golden["predictions"], golden["tolerance"] = [1.5, 2.2], {"relative": 0.0, "absolute": 0.1}
    assert verdicts(probe())["golden"] == "pass"


@pytest.mark.parametrize(
    ("probabilities", "verdict"), [([[0.25, 0.75]] * 2, "pass"), ([[0.75, 0.25]] * 2, "fail")], ids=["same", "other"]
)
def test_probabilities_are_compared_when_there_are_some(
    probe: Callable[..., Any], golden: dict[str, Any], probabilities: list[list[float]], verdict: str
) -> None:
    golden["probabilities"] = probabilities
    assert verdicts(probe())["golden"] == verdict


def test_many_golden_rows_go_in_several_requests(
    probe: Callable[..., Any], golden: dict[str, Any], model_server: Any
) -> None:
    golden["instances"], golden["predictions"] = [[1.0]] * 300, [1.0] * 300
    assert verdicts(probe())["golden"] == "pass"
    assert [len(body["instances"]) for _path, body in model_server.asked if body] == [256, 44]


def test_a_refused_row_is_told(probe: Callable[..., Any], model_server: Any) -> None:
    model_server.answers["/predict"] = (400, {"detail": "row 0, column age: expected a number, found null"})
    assert "found status 400 (row 0, column age: expected a number, found null)" in probe()["msg"]


def test_a_slow_model_does_not_pass(probe: Callable[..., Any]) -> None:
    message = probe(max_latency_ms=0.000001, gates=["latency"])["msg"]
    assert "expected p99 of at most 1e-06 ms, found " in message
    assert "over 100 requests of one row" in message


def test_nobody_at_the_address(probe: Callable[..., Any]) -> None:
    assert probe(address="127.0.0.1:9")["msg"].startswith("gate ready: 127.0.0.1:9/v2/health/ready: expected ready")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"address": "nowhere"}, "address: expected HOST:PORT, found 'nowhere'"),
        ({"golden": None}, "gates: expected the option golden for the gate golden, found none"),
        ({"version": None, "digest": None}, "expected the option version or digest for the gate version"),
        ({"gates": ["latency"]}, "gates: expected the option max_latency_ms for the gate latency, found none"),
        ({"golden": None, "gates": [], "max_latency_ms": 5}, "expected the option golden for the gate latency"),
        ({"gates": ["ready", "speed"]}, "gates: expected some of ready, version, golden, latency, found 'speed'"),
        ({"golden": "/nonexistent"}, "/nonexistent"),
    ],
)
def test_what_cannot_be_asked_is_said(
    probe: Callable[..., Any], model_server: Any, options: dict[str, Any], message: str
) -> None:
    assert message in probe(**options)["msg"]
    assert model_server.asked == []


def test_golden_rows_that_are_none_are_said(probe: Callable[..., Any], golden: dict[str, Any]) -> None:
    golden.clear()
    assert "expected golden rows, found: KeyError('instances')" in probe()["msg"]
