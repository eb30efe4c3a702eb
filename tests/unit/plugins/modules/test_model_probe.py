# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""model_probe, against a real HTTP server."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.modelfleet.onprem.plugins.module_utils import _gates
from ansible_collections.modelfleet.onprem.plugins.module_utils._layout import Layout
from ansible_collections.modelfleet.onprem.plugins.module_utils._verdict import ADVICE, UNDECIDED
from ansible_collections.modelfleet.onprem.plugins.modules import model_probe
from ansible_collections.modelfleet.onprem.plugins.plugin_utils.policy import parse_policy

from tests.unit.plugins.modules.conftest import RUNNING, ModelServer

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
        columns = [{"name": "width"}, {"name": "height"}]
        contract = {"inputs": columns, "outputs": [{"name": "predictions", "classes": None}]}
        (tmp_path / "contract.json").write_text(json.dumps(contract))
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


ENFORCED = {"mode": "enforce"}


def verdicts(result: dict[str, Any]) -> dict[str, str]:
    return {gate["gate"]: gate["verdict"] for gate in result["gates"]}


def test_a_good_release_passes(probe: Callable[..., Any], model_server: Any) -> None:
    result = probe()
    assert verdicts(result) == {"ready": "pass", "version": "pass", "golden": "pass"}
    assert (result["changed"], result["address"], "diff" in result) == (False, model_server.address, False)


@pytest.mark.parametrize(
    ("gates", "put"),
    [
        ({"latency": ENFORCED, "ready": ENFORCED}, {"ready": "pass", "latency": "pass"}),
        ({"golden": {"mode": "off"}, "ready": ENFORCED}, {"ready": "pass", "golden": "off"}),
        ({}, {}),
    ],
    ids=["in their own order", "one that is off", "none"],
)
def test_the_gates_of_the_policy_are_put(probe: Callable[..., Any], gates: dict[str, Any], put: dict[str, str]) -> None:
    found = verdicts(probe(gates=gates))
    assert list(found.items()) == list(put.items())


def test_a_gate_that_only_warns_does_not_end_the_run(probe: Callable[..., Any]) -> None:
    result = probe(version="4", gates={"version": {"mode": "warn"}, "golden": ENFORCED})
    assert "msg" not in result
    assert verdicts(result) == {"version": "warn", "golden": "pass"}


def test_check_mode_asks_too(probe: Callable[..., Any], model_server: Any) -> None:
    assert probe(_ansible_check_mode=True)["gates"][2]["verdict"] == "pass"
    assert [path for path, _body in model_server.asked] == [*3 * ["/v2/health/ready"], "/predict"]


def test_the_first_digits_of_a_digest_are_enough(probe: Callable[..., Any]) -> None:
    assert verdicts(probe(digest=DIGEST[:12]))["version"] == "pass"


def test_a_server_that_is_not_ready_gets_no_other_question(probe: Callable[..., Any], model_server: Any) -> None:
    model_server.answers["/v2/health/ready"] = (503, {"ready": False, "detail": "the model is loading"})
    result = probe()
    where = f"{model_server.address}/v2/health/ready"
    said = f"gate ready: {where}: expected ready for tumour, found status 503 (the model is loading)"
    assert result["msg"] == f"{said}: {ADVICE['ready']}"
    assert verdicts(result) == {"ready": "fail"}
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


@pytest.mark.parametrize(("scores", "verdict"), [([-0.25, 0.5], "pass"), ([-0.25, 0.75], "fail")])
def test_scores_of_an_anomaly_detector_are_compared_too(
    probe: Callable[..., Any], golden: dict[str, Any], model_server: Any, scores: list[float], verdict: str
) -> None:
    golden["predictions"], golden["scores"] = [-1, 1], scores
    model_server.answers["/predict"] = (200, {"predictions": [-1, 1], "scores": [-0.25, 0.5]})
    result = probe()
    assert verdicts(result)["golden"] == verdict
    if verdict == "fail":
        assert "found scores of row 1: expected 0.75, found 0.5 (tolerance: " in result["msg"]


def test_many_golden_rows_go_in_several_requests(
    probe: Callable[..., Any], golden: dict[str, Any], model_server: Any
) -> None:
    golden["instances"], golden["predictions"] = [[1.0]] * 300, [1.0] * 300
    assert verdicts(probe())["golden"] == "pass"
    assert [len(body["instances"]) for _path, body in model_server.asked if body] == [256, 44]


def at_most(rows: int) -> Callable[[Any], Any]:
    """A model server that takes so many rows at once."""
    return lambda body: predict(body) if len(body["instances"]) <= rows else (413, {"detail": f"at most {rows} rows"})


@pytest.mark.parametrize(
    ("most", "sizes"), [(100, [256, 128, 64, 64, 64, 64, 44]), (1, [256, 128, 64, 32, 16, 8, 4, 2, *300 * [1]])]
)
def test_a_server_that_takes_few_rows_at_once_is_asked_for_fewer(
    probe: Callable[..., Any], golden: dict[str, Any], model_server: Any, most: int, sizes: list[int]
) -> None:
    golden["instances"], golden["predictions"] = (
        [[float(row)] for row in range(300)],
        [float(row) for row in range(300)],
    )
    model_server.answers["/predict"] = (200, at_most(most))
    result = probe(gates={"golden": ENFORCED})
    assert verdicts(result) == {"golden": "pass"}
    assert [len(body["instances"]) for _path, body in model_server.asked if body] == sizes


def test_a_row_that_is_too_large_alone_is_refused(probe: Callable[..., Any], model_server: Any) -> None:
    model_server.answers["/predict"] = (200, at_most(0))
    assert "found status 413 (at most 0 rows)" in probe()["msg"]


def test_a_refused_row_is_told(probe: Callable[..., Any], model_server: Any) -> None:
    model_server.answers["/predict"] = (400, {"detail": "row 0, column age: expected a number, found null"})
    assert "found status 400 (row 0, column age: expected a number, found null)" in probe()["msg"]


def test_the_answers_to_golden_rows_are_returned_to_be_compared_over_hosts(
    probe: Callable[..., Any], golden: dict[str, Any]
) -> None:
    answers = {"predictions": [1.5, 2.25], "probabilities": None, "scores": None, "tolerance": golden["tolerance"]}
    assert probe()["golden_answers"] == answers


def test_every_worker_answers_the_golden_rows(probe: Callable[..., Any], model_server: Any) -> None:
    # As where the kernel chooses: the second one is not met at once.
    order = iter([0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 1, 0, 0, 0, 0, 0, 0])
    document = model_server.answers["/v2/health/ready"][1]
    model_server.answers["/v2/health/ready"] = (
        200,
        lambda _body: {**document, "worker": 70 + next(order), "workers": 2},
    )
    (gate,) = probe(gates={"golden": ENFORCED})["gates"]
    assert (gate["verdict"], gate["details"]) == ("pass", {"workers": 2})
    assert gate["expected"] == "the answers to 2 golden rows from each of 2 workers"
    assert [path for path, _body in model_server.asked].count("/predict") == 2


def test_a_worker_that_does_not_answer_is_missed(
    probe: Callable[..., Any], model_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_gates, "WORKERS_SECONDS", 0.2)
    document = {**model_server.answers["/v2/health/ready"][1], "worker": 7, "workers": 3}
    model_server.answers["/v2/health/ready"] = (200, document)
    words = "expected the answers to 2 golden rows from 3 workers, found 1 that answer within 0.2 s"
    assert probe(gates={"golden": ENFORCED})["msg"].endswith(f"{words}: {ADVICE['golden']}")


@pytest.fixture
def old_server() -> Iterator[Any]:
    server = ModelServer()
    server.answers["/predict"] = (200, predict)
    yield server
    server.close()


def latency(**thresholds: Any) -> dict[str, Any]:
    return {"latency": {"mode": "enforce", "factor": None, "max_ms": None, **thresholds}}


def test_a_slow_model_does_not_pass(probe: Callable[..., Any]) -> None:
    message = probe(gates=latency(max_ms=0.000001))["msg"]
    assert "expected p99 of at most 1e-06 ms, found " in message
    assert re.search(r"(\d+) requests of one row; no old release beside it; \1 of \1 slower than 1e-06 ms", message)


def test_one_that_is_slower_than_the_old_release_does_not_pass(
    probe: Callable[..., Any], model_server: Any, old_server: Any
) -> None:
    def slow(body: Any) -> dict[str, Any]:
        time.sleep(0.1)
        return predict(body)

    options = {"gates": latency(factor=3), "baseline": old_server.address}
    (gate,) = probe(**options)["gates"]
    figures = {"p99_ms", "requests", "slower", "old_p99_ms", "old_requests", "old_slower"}
    assert (gate["verdict"], set(gate["details"])) == ("pass", figures)
    model_server.answers["/predict"] = (200, slow)
    result = probe(**options)
    assert "expected p99 of at most 3 times the old release's, found 1" in result["msg"]
    assert re.search(r"; old release \S+ ms over \d+; (\d+) of \1 slower than \S+ ms \(old release ", result["msg"])
    assert verdicts(probe(**{**options, "gates": {"latency": {"mode": "warn", "factor": 3}}})) == {"latency": "warn"}


def test_without_an_old_release_only_the_limit_counts(probe: Callable[..., Any]) -> None:
    (gate,) = probe(gates=latency(factor=3))["gates"]
    assert (gate["verdict"], gate["expected"]) == ("pass", "any latency")
    assert gate["found"].endswith("no old release beside it")


@pytest.mark.parametrize(
    ("old", "max_ms", "verdict", "why"),
    [
        ({"replaces": "1-aaaaaaaaaaaa"}, None, "inconclusive", "no old release beside it"),
        ({"baseline": "127.0.0.1:9"}, None, "inconclusive", "an old release that does not answer a golden row: "),
        ({"replaces": "1-aaaaaaaaaaaa"}, 0.000001, "fail", "no old release beside it"),
    ],
    ids=["none beside it", "one that does not answer", "too slow whatever the old one is"],
)
def test_an_old_release_that_cannot_be_asked_is_no_proof(
    probe: Callable[..., Any], old: dict[str, str], max_ms: float | None, verdict: str, why: str
) -> None:
    result = probe(gates=latency(factor=3, max_ms=max_ms), **old)
    (gate,) = result["gates"]
    assert (gate["verdict"], "failed" in result) == (verdict, verdict == "fail")
    assert gate["expected"].endswith("p99 of at most 3 times the old release's")
    assert why in gate["found"]
    strict = probe(gates=latency(factor=3, max_ms=max_ms, inconclusive="fail"), **old)
    assert strict["msg"].startswith("gate latency: ")
    assert strict["msg"].endswith((UNDECIDED if verdict == "inconclusive" else ADVICE)["latency"])


def refusing(row: list[float]) -> Callable[[Any], Any]:
    """A model that refuses a row."""
    return lambda body: (422, {"detail": "no"}) if row in body["instances"] else predict(body)


@pytest.mark.parametrize("new", [predict, refusing([2.0, 0.25])], ids=["the new one takes it", "both refuse it"])
def test_a_row_that_the_old_release_refuses_is_left_out_for_both(
    probe: Callable[..., Any], model_server: Any, old_server: Any, new: Callable[[Any], Any]
) -> None:
    old_server.answers["/predict"] = (200, refusing([2.0, 0.25]))
    model_server.answers["/predict"] = (200, new)
    assert verdicts(probe(gates=latency(factor=100), baseline=old_server.address)) == {"latency": "pass"}
    assert {str(body["instances"]) for _path, body in model_server.asked} == {"[[0.5, 1.0]]"}


def dying(requests: int) -> Callable[[Any], Any]:
    """A model that answers so many requests."""
    left = iter(range(requests))
    return lambda body: predict(body) if next(left, None) is not None else (500, {"detail": "dead"})


@pytest.mark.parametrize(
    ("old", "why"),
    [
        (dying(0), "an old release that refuses all 2 golden rows"),
        (dying(100), "an old release that does not answer a golden row: status 500 (dead)"),
    ],
    ids=["none", "not to the end"],
)
def test_an_old_release_that_fails_is_no_fault_of_the_new_one(
    probe: Callable[..., Any], model_server: Any, old_server: Any, old: Callable[[Any], Any], why: str
) -> None:
    old_server.answers["/predict"] = (200, old)
    (gate,) = probe(gates=latency(factor=3, max_ms=10_000), baseline=old_server.address)["gates"]
    assert gate["verdict"] == "inconclusive"
    assert why in gate["found"]
    model_server.answers["/predict"] = (200, refusing([2.0, 0.25]))
    result = probe(gates=latency(factor=3), baseline=old_server.address)
    assert (verdicts(result), result["gates"][0]["found"]) == ({"latency": "fail"}, "status 422 (no)")


def capture(layout: Layout, rows: list[list[float]], slot: str = "blue", **line: Any) -> None:
    folder = layout.root / f"var/lib/model-server/tumour-{slot}"
    folder.mkdir(parents=True, exist_ok=True)
    outputs = {"predictions": [sum(row) for row in rows]}
    document = {"columns": ["width", "height"], "instances": rows, "digest": "0ld", "outputs": outputs, **line}
    with open(folder / "1-1.jsonl", "a") as file:
        file.write(json.dumps(document) + "\n")


def replay(**thresholds: Any) -> dict[str, Any]:
    return {"replay": {"mode": "enforce", "rows": 2000, "min_rows": 10, "max_flip_rate": 0.5, **thresholds}}


ROWS = [[float(number), 0.5] for number in range(50)]


def test_captured_rows_get_the_answers_of_the_old_release(
    probe: Callable[..., Any], layout: Layout, old_server: Any
) -> None:
    capture(layout, ROWS)
    (gate,) = probe(gates=replay(max_change=0), baseline=old_server.address)["gates"]
    assert gate["verdict"] == "pass"
    assert (gate["details"]["rows"], gate["details"]["max_change"]) == (50, 0.0)
    assert [len(body["instances"]) for _path, body in old_server.asked] == [50]


def test_a_request_that_is_too_large_is_no_refusal_of_its_rows(
    probe: Callable[..., Any], layout: Layout, old_server: Any, model_server: Any
) -> None:
    rows = [[float(number), 0.5] for number in range(1200)]
    capture(layout, rows)
    old_server.answers["/predict"] = (200, at_most(3))

    def refusing_fifty(body: Any) -> Any:
        refuses = len(body["instances"]) <= 3 and any(row in rows[:50] for row in body["instances"])
        return (422, {"detail": "no"}) if refuses else at_most(3)(body)

    model_server.answers["/predict"] = (200, refusing_fifty)
    (gate,) = probe(gates=replay(), baseline=old_server.address)["gates"]
    assert (gate["verdict"], gate["details"]["rows"], gate["details"]["refused"]) == ("pass", 1200, 50)


def test_what_was_captured_counts_where_no_old_release_runs(probe: Callable[..., Any], layout: Layout) -> None:
    capture(layout, ROWS, outputs={"predictions": [100.0 + sum(row) for row in ROWS]})
    # What other releases answered says nothing of the one that is replaced, be it newer.
    capture(layout, ROWS, slot="green", digest="other")
    message = probe(gates=replay(max_p99_change=1), replaces="2-0ld")["msg"]
    assert (
        "expected rows are refused, of at most 50.00% of at least 10 rows; p99 of at most 1, found 0 of 50" in message
    )


def test_answers_of_another_release_than_the_replaced_one_tell_nothing(
    probe: Callable[..., Any], layout: Layout
) -> None:
    capture(layout, ROWS)
    (gate,) = probe(gates=replay(), replaces="2-bbbbbbbbbbbb")["gates"]
    assert (gate["verdict"], gate["expected"]) == (
        "inconclusive",
        "at least 10 captured rows that 2-bbbbbbbbbbbb answered",
    )


def test_rows_that_the_new_release_alone_refuses_are_found(
    probe: Callable[..., Any], layout: Layout, old_server: Any, model_server: Any
) -> None:
    # A fake server answers with one status, so every row is refused.
    capture(layout, ROWS)
    model_server.answers["/predict"] = (422, {"detail": "no"})
    result = probe(gates=replay(), baseline=old_server.address)
    assert result["gates"][0]["details"]["refused"] == 50
    assert "found 50 of 50 rows refused" in result["msg"]


@pytest.mark.parametrize(
    ("line", "inconclusive", "found"),
    [
        (None, "pass", "none: the service captures none (capture_share), or none yet"),
        ({"columns": ["width"]}, "pass", "50 rows without the column height, which is redacted or new"),
        ({"digest": DIGEST}, "pass", "none: the service captures none"),
        ({}, "fail", "0 of 50 rows refused; scores change by up to 0, p99 0; too few rows to tell, 100 needed"),
    ],
    ids=["none", "redacted", "its own", "too few"],
)
def test_what_cannot_be_told_follows_the_policy(
    probe: Callable[..., Any], layout: Layout, line: dict[str, Any] | None, inconclusive: str, found: str
) -> None:
    if line is not None:
        capture(layout, ROWS, **{"digest": "b" * 64, **line})
    result = probe(gates=replay(min_rows=100, inconclusive=inconclusive), replaces="2-bbbbbbbbbbbb")
    assert verdicts(result) == {"replay": "inconclusive"}
    assert result["gates"][0]["found"].startswith(found)
    assert ("msg" in result) is (inconclusive == "fail")


@pytest.mark.parametrize("thresholds", [{}, {"requests": "/absent"}, {"segment": "city"}])
def test_the_first_release_and_one_that_is_gone_back_to_have_nothing_to_compare_with(
    probe: Callable[..., Any], layout: Layout, thresholds: dict[str, str]
) -> None:
    capture(layout, ROWS, outputs={"predictions": [100.0 + sum(row) for row in ROWS]})
    result = probe(gates={**replay(max_change=0, inconclusive="fail", **thresholds), **latency(inconclusive="fail")})
    assert verdicts(result) == {"replay": "pass", "latency": "pass"}
    assert result["gates"][0]["found"] == "no release before it to compare with"


def test_a_file_of_requests_can_be_replayed(
    probe: Callable[..., Any], tmp_path: Path, layout: Layout, old_server: Any
) -> None:
    path = tmp_path / "requests.jsonl"
    capture(layout, ROWS, digest=DIGEST)
    (layout.root / "var/lib/model-server/tumour-blue/1-1.jsonl").rename(path)
    (gate,) = probe(gates=replay(requests=str(path)), baseline=old_server.address)["gates"]
    assert (gate["verdict"], gate["details"]["rows"]) == ("pass", 50)


def test_an_old_release_may_be_named_by_its_slot(
    probe: Callable[..., Any], layout: Layout, old_server: Any, systemd: Any
) -> None:
    capture(layout, ROWS)
    settings = layout.settings("tumour", "blue")
    settings.parent.mkdir(parents=True)
    settings.write_text(f'BIND="{old_server.address}"\n')
    assert verdicts(probe(gates=replay(), baseline="blue")) == {"replay": "pass"}
    assert old_server.asked == []
    (systemd.folder / "model-server@tumour-blue.service").write_text(json.dumps(RUNNING))
    assert verdicts(probe(gates=replay(), baseline="blue")) == {"replay": "pass"}
    assert len(old_server.asked) == 1


@pytest.fixture
def write_slot(layout: Layout, golden: dict[str, Any]) -> Callable[..., None]:
    """Have a slot's settings say that it listens at an address and has a bundle with these golden rows."""

    def write(address: str, service: str = "tumour", slot: str = "green") -> None:
        bundle = layout.release(service, "3-0a1b2c3d4e5f") / "bundle"
        bundle.mkdir(parents=True, exist_ok=True)
        (bundle / "golden.json").write_text(json.dumps(golden))
        (bundle / "contract.json").write_text(json.dumps({"inputs": [], "outputs": []}))
        settings = layout.settings(service, slot)
        settings.parent.mkdir(parents=True, exist_ok=True)
        settings.write_text(f'BIND="{address}"\nMODEL_BUNDLE="{bundle}"\n')

    return write


SLOT = {"address": None, "golden": None, "slot": "green"}


def test_a_slot_says_where_it_listens_and_what_its_golden_rows_are(
    probe: Callable[..., Any], write_slot: Callable[..., None], model_server: Any, golden: dict[str, Any]
) -> None:
    write_slot(f"0.0.0.0:{model_server.address.partition(':')[2]}")
    result = probe(**SLOT)
    assert verdicts(result) == {"ready": "pass", "version": "pass", "golden": "pass"}
    assert (result["service"], result["slot"], result["address"]) == ("tumour", "green", model_server.address)
    assert result["golden_answers"]["predictions"] == golden["predictions"]


def test_what_is_given_beside_the_slot_counts(
    probe: Callable[..., Any], write_slot: Callable[..., None], model_server: Any, golden: dict[str, Any]
) -> None:
    write_slot("127.0.0.1:9")
    golden["predictions"] = [1.5, 2.75]
    result = probe(slot="green")
    assert (verdicts(result)["golden"], result["address"]) == ("fail", model_server.address)
    assert (result["service"], result["slot"]) == ("tumour", "green")


def test_a_slot_that_was_never_started_is_one_line(probe: Callable[..., Any], layout: Layout) -> None:
    result = probe(**SLOT)
    path = layout.settings("tumour", "green")
    assert result["msg"] == f"{path}: expected the settings of tumour green, found none: run model_slot first"
    assert (result["address"], result["gates"]) == (None, [])


def test_a_whole_policy_may_be_given(probe: Callable[..., Any], golden: dict[str, Any], tmp_path: Path) -> None:
    policy = parse_policy({"latency": {"mode": "off"}})
    # A replay that is off needs no contract.
    alone = tmp_path / "alone/golden.json"
    alone.parent.mkdir()
    alone.write_text(json.dumps(golden))
    assert verdicts(probe(gates=policy, golden=str(alone))) == {
        "ready": "pass",
        "version": "pass",
        "golden": "pass",
        "replay": "off",
        "latency": "off",
    }


def test_several_are_asked_in_turn_until_a_gate_blocks(
    probe: Callable[..., Any],
    run_module: Callable[..., Any],
    write_slot: Callable[..., None],
    model_server: Any,
    old_server: Any,
) -> None:
    # The fixture's server is one of them.
    assert callable(probe)
    old_server.be_ready(model="iris", version="7")
    for service, server in (("tumour", model_server), ("iris", old_server), ("wine", old_server)):
        write_slot(server.address, service)
    several = [
        {"service": service, "slot": "green", "version": version, "timeout": 2}
        for service, version in (("tumour", "3"), ("iris", "7"), ("wine", "1"))
    ]
    good = run_module(model_probe, {"several": several[:2]})
    assert [(each["service"], each["address"], list(verdicts(each))) for each in good["several"]] == [
        ("tumour", model_server.address, ["ready", "version", "golden"]),
        ("iris", old_server.address, ["ready", "version", "golden"]),
    ]
    assert ("failed" in good, "gates" in good, len(good["several"][1]["golden_answers"]["predictions"])) == (
        *(False, False),
        2,
    )
    model_server.asked.clear()
    bad = run_module(model_probe, {"several": [several[1], several[2], several[0]]})
    assert (bad["service"], bad["slot"], verdicts(bad)) == ("wine", "green", {"ready": "fail"})
    assert bad["msg"].startswith(f"gate ready: {old_server.address}/v2/health/ready: expected ready for wine, found ")
    assert [(each["service"], each.get("failed", False)) for each in bad["several"]] == [
        ("iris", False),
        ("wine", True),
    ]
    assert model_server.asked == []


def test_nobody_at_the_address(probe: Callable[..., Any]) -> None:
    assert probe(address="127.0.0.1:9")["msg"].startswith("gate ready: 127.0.0.1:9/v2/health/ready: expected ready")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"address": "nowhere"}, "address: expected HOST:PORT, found 'nowhere'"),
        ({"golden": None}, "gates: expected the option golden for the gate golden, found none"),
        ({"version": None, "digest": None}, "expected the option version or digest for the gate version"),
        ({"golden": None, "gates": {"latency": ENFORCED}}, "expected the option golden for the gate latency"),
        (
            {"gates": {"speed": ENFORCED}},
            "environment, load, ready, version, golden, replay, latency, found 'speed'",
        ),
        (
            {"gates": replay(segment="city"), "replaces": "2-0ld"},
            "gates.replay.segment: expected one of width, height, found 'city'",
        ),
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
