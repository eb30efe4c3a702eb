# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The checks that a release must pass before it gets traffic, each against the model server itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from ansible_collections.modelfleet.onprem.plugins.module_utils._captured import Columns, read_rows
from ansible_collections.modelfleet.onprem.plugins.module_utils._golden import mismatches
from ansible_collections.modelfleet.onprem.plugins.module_utils._http import READY, HttpError, Server, read_ready
from ansible_collections.modelfleet.onprem.plugins.module_utils._latency import Slower, measure
from ansible_collections.modelfleet.onprem.plugins.module_utils._replay import (
    Answered,
    Thresholds,
    are_labels,
    compare,
    percentile,
)
from ansible_collections.modelfleet.onprem.plugins.module_utils._verdict import (
    Finding,
    GateError,
    Policy,
    Put,
    parse_policies,
    put_gates,
)

PREDICT = "/predict"
TOO_LARGE = 413
ROWS_A_REQUEST = 256
CONNECTIONS_A_WORKER = 4
WORKERS_SECONDS = 5.0
BETWEEN_SECONDS = 0.05
REPLAYED_ROWS = 2000
REPLAYED_A_REQUEST = 500
MOST_REFUSED = 50
"""So many rows that are refused are looked for one by one; beyond them all rows of a refused request count."""
NOISE_MS = 1.0
"""An old release that is faster than this counts as taking so long: what is below it is the machine's noise."""


@dataclass(frozen=True)
class Golden:
    """Golden rows: inputs, and what the model gave for them when the bundle was built."""

    instances: Sequence[Any]
    predictions: Sequence[Any]
    probabilities: Sequence[Any] | None
    scores: Sequence[Any] | None
    tolerance: Mapping[str, float]


@dataclass(frozen=True)
class Expected:
    """What the gates compare with; what is None is not compared.

    ``baseline`` is the address of the old release and ``replaces`` its name, wherever it runs. ``captured`` are files
    of requests, the newest first, and ``columns`` is what the contract says of the release's own. ``keys`` are API keys
    by the address that takes them. ``policy`` is that of the gate which is put.
    """

    service: str | None
    version: str | None
    digest: str | None
    golden: Golden | None
    baseline: str | None = None
    replaces: str | None = None
    captured: Sequence[Path] = ()
    columns: Columns = field(default_factory=Columns)
    keys: Mapping[str, str] = field(default_factory=dict, repr=False)
    policy: Policy = field(default_factory=dict)


def ready(server: Server, expected: Expected) -> Finding:
    """The model server says that it is ready, for the service that is asked for."""
    answer = read_ready(server)
    service = expected.service
    if answer.ready and service is not None and answer.model != service:
        return Finding(False, f"ready for {service}", f"ready for {answer.model}")
    return Finding(answer.ready, f"ready for {service}" if service else "ready", answer.found)


def version(server: Server, expected: Expected) -> Finding:
    """The model server has loaded the version, and the very bundle, that is asked for."""
    answer = read_ready(server)
    wanted = {"version": expected.version, "digest": expected.digest}
    found = {"version": answer.version, "digest": answer.digest}
    compared = [name for name in wanted if wanted[name] is not None]
    same = {
        "version": found["version"] == wanted["version"],
        # A digest may be given by its first digits, as in a release's name.
        "digest": str(found["digest"]).startswith(str(wanted["digest"])),
    }
    return Finding(
        all(same[name] for name in compared),
        ", ".join(f"{name} {wanted[name]}" for name in compared) or "any version",
        ", ".join(f"{name} {found[name]}" for name in compared) or f"version {answer.version}",
    )


def golden(server: Server, expected: Expected) -> Finding:
    """Every worker gives for the golden rows what they gave when the bundle was built, within the tolerance."""
    rows = expected.golden
    if rows is None:
        return Finding(True, "no golden rows", "no golden rows")
    words = f"the answers to {len(rows.instances)} golden rows"
    with every_worker(server) as (workers, count):
        if len(workers) < count:
            seconds = f"{WORKERS_SECONDS:g} s"
            return Finding(False, f"{words} from {count} workers", f"{len(workers)} that answer within {seconds}")
        if count > 1:
            words += f" from each of {count} workers"
        answers: dict[str, list[Any] | None] = {}
        for number, worker in enumerate(workers):
            try:
                answers = _ask(worker, rows.instances, rows.probabilities is not None, ROWS_A_REQUEST)
            except RefusedError as error:
                return Finding(False, words, str(error))
            lines = mismatches(rows.predictions, answers["predictions"] or [], rows.tolerance)
            for name, wanted in (("probabilities", rows.probabilities), ("scores", rows.scores)):
                if wanted is not None:
                    more = mismatches(wanted, answers[name] or [], rows.tolerance)
                    lines += [f"{name} of {line}" for line in more]
            if lines:
                who = f"from worker {number + 1}: " if count > 1 else ""
                given = {"golden_answers": {**answers, "tolerance": dict(rows.tolerance)}}
                return Finding(False, words, who + "; ".join(lines[:5]), gives=given)
    gives = {"golden_answers": {**answers, "tolerance": dict(rows.tolerance)}}
    return Finding(True, words, "the same", {"workers": count}, gives)


@contextmanager
def every_worker(server: Server) -> Iterator[tuple[list[Server], int]]:
    """A connection to each worker of ``server``, and how many there are: the kernel chooses who gets a connection.

    Several are opened at a time, for an idle worker takes a single one before another wakes up. A worker that is not
    found within WORKERS_SECONDS is missing.
    """
    count = read_ready(server).workers
    if count == 1:
        yield [server], 1
        return
    deadline = time.monotonic() + WORKERS_SECONDS
    with ExitStack() as stack:
        found: dict[str, Server] = {}
        while len(found) < count and time.monotonic() < deadline:
            connections = [
                Server(server.address, server.timeout, server.key) for _number in range(CONNECTIONS_A_WORKER * count)
            ]
            for connection in connections:
                stack.enter_context(connection).connect()
            for connection in connections:
                worker = read_ready(connection).worker
                if worker is None or worker in found:
                    connection.close()
                else:
                    found[worker] = connection
            if len(found) < count:
                time.sleep(BETWEEN_SECONDS)
        yield list(found.values()), count


class RefusedError(ValueError):
    """A server did not predict what it was asked for, in one line."""


def _ask(
    server: Server, instances: Sequence[Any], probabilities: bool, rows_a_request: int
) -> dict[str, list[Any] | None]:
    """What ``server`` answers to ``instances``; RefusedError if it is no prediction.

    Where a request is too large for the server (its ``max_rows`` or ``max_body_bytes``), half the rows are sent at once
    from there on.
    """
    found: dict[str, list[Any] | None] = {"predictions": [], "probabilities": None, "scores": None}
    first, size = 0, rows_a_request
    while first < len(instances):
        rows = instances[first : first + size]
        answer = server.post(PREDICT, {"instances": rows, **({"probabilities": True} if probabilities else {})})
        if answer.status == TOO_LARGE and len(rows) > 1:
            size = len(rows) // 2
            continue
        first += len(rows)
        document = answer.json()
        if answer.status != 200 or not isinstance(document, dict):
            raise RefusedError(answer.shown)
        for name in found:
            if document.get(name) is not None:
                found[name] = (found[name] or []) + document[name]
    return found


def replay(server: Server, expected: Expected) -> Finding:
    """Recent requests get the answers that the old release gives to them, but for what the thresholds allow."""
    policy = expected.policy
    thresholds = Thresholds(**{name: policy[name] for name in Thresholds.__dataclass_fields__ if name in policy})
    words = f"at least {thresholds.min_rows} captured rows"
    if expected.baseline is None and not expected.replaces:
        return Finding(True, words, "no release before it to compare with")
    most, columns, segment = policy.get("rows", REPLAYED_ROWS), expected.columns, policy.get("segment")
    if segment is not None and segment not in columns.names:
        raise GateError(f"gates.replay.segment: expected one of {', '.join(columns.names)}, found {segment!r}")
    files, of = expected.captured, None
    if policy.get("requests"):
        files = [Path(policy["requests"])]
    elif expected.baseline is None and expected.replaces:
        # Any other release's answers say nothing about the one that is replaced.
        words += f" that {expected.replaces} answered"
        of = expected.replaces.rpartition("-")[2]
    rows = read_rows(files, most, columns, of)
    if not rows.instances:
        return Finding(None, words, rows.why_none)
    if expected.baseline is None:
        old = rows.answered
        if old is None:
            return Finding(None, words, "none with the old release's answers, and no old release beside it")
    else:
        with Server(expected.baseline, server.timeout, expected.keys.get(expected.baseline)) as baseline:
            try:
                old = _answered(baseline, rows.instances, columns.probabilities)
            except HttpError as error:
                return Finding(None, "an old release that answers", str(error))
    kept = [row for row, value in enumerate(old.predictions) if value is not None]
    if not kept:
        return Finding(None, words, f"{len(rows.instances)}, which the old release refuses")
    rows, old = rows.only(kept), _only(old, kept)
    new = _answered(server, rows.instances, columns.probabilities)
    values = [row[columns.names.index(segment)] for row in rows.instances] if segment is not None else []
    found = compare(old, new, thresholds, are_labels(old.predictions, columns.classes), segment, values)
    return Finding(found.passed, found.expected, found.found, found.details)


def _only(answered: Answered, rows: Sequence[int]) -> Answered:
    scores = answered.scores
    return Answered([answered.predictions[row] for row in rows], scores and [scores[row] for row in rows])


def _answered(server: Server, rows: Sequence[Any], probabilities: bool) -> Answered:
    """What ``server`` answers to ``rows``, in few requests; None for each row that it refuses."""
    predictions: list[Any] = []
    scores: list[Any] = []

    def ask(instances: Sequence[Any]) -> None:
        try:
            found = _ask(server, instances, probabilities, REPLAYED_A_REQUEST)
        except RefusedError:
            # One row is enough for the refusal of all, so the halves are asked for.
            if len(instances) == 1 or predictions.count(None) >= MOST_REFUSED:
                predictions.extend([None] * len(instances))
                scores.extend([None] * len(instances))
                return
            ask(instances[: len(instances) // 2])
            ask(instances[len(instances) // 2 :])
            return
        predictions.extend(found["predictions"] or [])
        scores.extend(found["probabilities"] or found["scores"] or [None] * len(instances))

    for first in range(0, len(rows), REPLAYED_A_REQUEST):
        ask(rows[first : first + REPLAYED_A_REQUEST])
    return Answered(predictions, scores if any(score is not None for score in scores) else None)


def latency(server: Server, expected: Expected) -> Finding:
    """99 of 100 requests of a golden row are answered within the limit, and within a factor of the old release's p99.

    More that are slower fail a release only where they are more than chance gives: where the old release's, which is
    asked in turns with it, are fewer. Where that one is replaced and cannot be asked beside the new one, it cannot be
    told whether the factor holds.
    """
    rows = expected.golden.instances if expected.golden else []
    if not rows:
        return Finding(True, "any latency", "no golden rows to measure with")
    most, factor = expected.policy.get("max_ms"), expected.policy.get("factor")
    compares = factor is not None and bool(expected.replaces or expected.baseline)
    limits = [f"p99 of at most {most:g} ms"] if most is not None else []
    limits += [f"p99 of at most {factor:g} times the old release's"] if compares else []
    words = "; ".join(limits)
    why_alone = ""
    try:
        try:
            times, old_times = _measure_beside(server, expected, rows)
        except AloneError as error:
            why_alone = str(error)
            (times,), old_times = measure([partial(_post_row, server)], rows), []
    except RefusedError as error:
        return Finding(False, words or "answers to golden rows", str(error))
    found = [f"{percentile(times, 0.99):.1f} ms over {len(times)} requests of one row"]
    details: dict[str, Any] = {"p99_ms": round(percentile(times, 0.99), 3), "requests": len(times)}
    judged: list[Slower] = []
    if most is not None:
        judged.append(Slower.of(most, times))
        details["slower_than_max_ms"] = judged[0].count
    if old_times:
        old_p99 = percentile(old_times, 0.99)
        beside = Slower.of(max(old_p99, NOISE_MS) * (factor or 0), times, old_times)
        judged.append(beside)
        found.append(f"old release {old_p99:.1f} ms over {len(old_times)}")
        details |= {"old_p99_ms": round(old_p99, 3), "old_requests": len(old_times)}
        details |= {"slower": beside.count, "old_slower": beside.old_count}
    else:
        found.append(why_alone)
    passed: bool | None = all(each.passes for each in judged)
    if passed and compares and not old_times:
        passed = None
    return Finding(passed, words or "any latency", "; ".join([*found, *map(str, judged)]), details)


class AloneError(ValueError):
    """There is no old release that a new one can be measured beside, in one line."""


def _measure_beside(server: Server, expected: Expected, rows: Sequence[Any]) -> list[list[float]]:
    """The milliseconds of the new and of the old release, for the rows that the old one takes.

    AloneError if it takes none, or fails in the midst of it: that is no fault of the new one.
    """
    if expected.baseline is None or expected.policy.get("factor") is None:
        raise AloneError("no old release beside it")
    with Server(expected.baseline, server.timeout, expected.keys.get(expected.baseline)) as old:

        def ask_old(row: Any) -> float:
            with _old_release():
                return _post_row(old, row)

        with _old_release():
            answered = _answered(old, rows, False)
        taken = [row for row, value in zip(rows, answered.predictions) if value is not None]
        if not taken:
            raise AloneError(f"an old release that refuses all {len(rows)} golden rows")
        return measure([partial(_post_row, server), ask_old], taken)


@contextmanager
def _old_release() -> Iterator[None]:
    """What goes wrong within is the old release's fault."""
    try:
        yield
    except (HttpError, RefusedError) as error:
        raise AloneError(f"an old release that does not answer a golden row: {error}") from error


def _post_row(server: Server, row: Any) -> float:
    answer = server.post(PREDICT, {"instances": [row]})
    if answer.status != 200:
        raise RefusedError(answer.shown)
    return answer.seconds


@dataclass(frozen=True)
class Gate:
    """A check of a model server, and the path that it asks.

    ``needs`` names fields of ``Expected`` that must be given (``a or b``: one of these).
    """

    check: Callable[[Server, Expected], Finding]
    path: str
    needs: tuple[str, ...] = ()

    def lacks(self, expected: Expected) -> str | None:
        """What it needs and was not given, None if nothing."""
        for need in self.needs:
            if not any(getattr(expected, name) for name in need.split(" or ")):
                return need
        return None


GATES = {
    "ready": Gate(ready, READY),
    "version": Gate(version, READY, needs=("version or digest",)),
    "golden": Gate(golden, PREDICT, needs=("golden",)),
    "replay": Gate(replay, PREDICT, needs=("golden",)),
    "latency": Gate(latency, PREDICT, needs=("golden",)),
}
"""Every gate there is of a running slot, in the order in which they are put."""

DEFAULT_GATES = ("ready", "version", "golden")


def choose_gates(gates: object, expected: Expected) -> dict[str, Policy]:
    """The policies in ``gates`` of those in GATES, in their order; GateError if one lacks what it needs.

    Gates that a running slot is not asked are passed over, and one that there is not is a GateError.
    """
    policies = parse_policies(gates, GATES)
    for name, policy in policies.items():
        need = GATES[name].lacks(expected)
        if need and policy["mode"] != "off":
            raise GateError(f"gates: expected the option {need} for the gate {name}, found none")
    return policies


def run_gates(server: Server, policies: Mapping[str, Policy], expected: Expected) -> Put:
    """Put the gates of ``policies`` to ``server``."""

    def check(gate: str) -> Finding:
        try:
            return GATES[gate].check(server, replace(expected, policy=policies[gate]))
        except HttpError as error:
            return Finding(False, "an answer", str(error))

    return put_gates(policies, {name: server.address + gate.path for name, gate in GATES.items()}, check)
