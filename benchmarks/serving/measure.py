"""The figures, each a function of how long and how often to measure, that adds its lines."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.figures import Figures
from benchmarks.serving import models, peers, servers
from benchmarks.serving.client import HOST, Target, latencies, requests_per_second
from benchmarks.serving.servers import OURS, stolen
from testbed.command import StepError
from testbed.load import percentile


@dataclass(frozen=True)
class Effort:
    """Servers take turns in ``rounds``; each is measured for ``seconds`` in each."""

    rounds: int = 3
    seconds: int = 2


WARM_UP_SECONDS = 1
WINDOW_SECONDS, WINDOWS = 0.5, 8
"""Latencies are measured in windows, so many of them for every second of every round."""

DISTURBED_SECONDS = WINDOW_SECONDS / 200
"""A window in which the server waited for its processor longer than half of the hundredth that p99 is about says how
busy the machine is, and not how the server does."""

STARTS = 3
"""Starts measured for every round: they are short."""

PATIENT = {"MAX_WAIT_MS": "60000"}
"""Memory is measured with large requests, of which none is to be refused for having to wait."""


def linear(figures: Figures, effort: Effort) -> None:
    figures.add("serving_linear_over_best_peer", _over_peers(figures, effort, "linear"), ">= 5")


def forest(figures: Figures, effort: Effort) -> None:
    figures.add("serving_forest_over_best_peer", _over_peers(figures, effort, "forest"), ">= 40")


def boosting(figures: Figures, effort: Effort) -> None:
    """Both of scikit-learn's kinds; the figure is of the one where we are the least ahead."""
    ratios = [_over_peers(figures, effort, name) for name in ("gradient_boosting", "hist_gradient_boosting")]
    figures.add("serving_boosting_over_best_peer", min(ratios), ">= 5")


def native(figures: Figures, effort: Effort) -> None:
    """What scikit-learn itself must serve."""
    ratio = _over_peers(figures, effort, "native", only=("fastapi",))
    figures.add("serving_native_over_fastapi", ratio, ">= 1.0")


def batch(figures: Figures, effort: Effort) -> None:
    """1,000 rows a request, of the linear model, for there nearly all of the work is a server's own.

    Stored beside it, without a bar: the same of the forest, beside FastAPI alone, where nearly all of it is the trees'.
    """
    ratio = _over_peers(figures, effort, "linear", count=models.BATCH)
    _over_peers(figures, effort, "forest", count=models.BATCH, only=("fastapi",))
    figures.add("serving_batch1000_over_best_peer", ratio, ">= 1.5")


def constant(figures: Figures, effort: Effort) -> None:
    """One row of the linear model, over a constant of the same size under gunicorn's own asgi worker and C parser.

    Stored beside it, without a bar: the same over a constant from our own worker class, which says how much of a
    request is decoding, predicting and encoding.
    """
    served, trained = servers.serve_ours("linear"), models.train("linear")
    body = _body(trained.rows[:1])
    with contextlib.ExitStack() as stack:
        ours = Target(stack.enter_context(servers.ours(served)).port, "/predict", body)
        answer = stack.enter_context(tempfile.NamedTemporaryFile("w", suffix=".json"))
        answer.write(json.dumps(_answer_of(ours)))
        answer.flush()
        program = Path(__file__).with_name("constant.py")
        other = stack.enter_context(servers.script("constant", servers.constant_python(), program, answer.name))
        fixed = Target(other.port, "/predict", body)
        other.wait_until(fixed.ask)
        own = stack.enter_context(_own_constant(served, answer.name))
        own_fixed = Target(own.port, "/predict", body)
        own.wait_until(own_fixed.ask)
        found = _in_turns({OURS: ours, "constant": fixed, "own_constant": own_fixed}, effort)
    medians = {name: statistics.median(values) for name, values in found.items()}
    figures.note(
        workload="constant",
        requests_per_second=_rounded(medians),
        serving_over_own_constant=round(medians[OURS] / medians["own_constant"], 2),
    )
    figures.add("serving_over_constant", round(medians[OURS] / medians["constant"], 2), ">= 0.7")


def tail(figures: Figures, effort: Effort) -> None:
    """How long requests take at half of the rate that the server is able to: p99 over p50.

    The client spins on its core, so whatever else the machine has to do falls on the server's, some milliseconds at a
    time, in which as many requests wait as p99 is about. So there are many short windows, and those count in which the
    server had its processor to itself, by the kernel's own account of what waited for it and of what a hypervisor took
    away. The figure is the median of their p99 over p50; where they are less than a quarter of all, the machine has too
    much else to do, and there is none. Between any two there is a window with a bare loop of epoll on the same core,
    from the same client and at the same rate: the floor that the machine has at the time. The floor, and p99 over p50
    of all windows and of all requests together, are stored beside the figure.
    """
    served, trained = servers.serve_ours("linear"), models.train("linear")
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(servers.ours(served))
        target = Target(server.port, "/predict", _body(trained.rows[:1]))
        answer = stack.enter_context(tempfile.NamedTemporaryFile("wb"))
        answer.write(target.exchange())
        answer.flush()
        program = Path(__file__).with_name("echo.py")
        length = str(len(target.request()))
        bare = stack.enter_context(servers.script("echo", served.python, program, answer.name, length))
        floor = Target(bare.port, "/predict", target.body)
        bare.wait_until(floor.exchange)
        requests_per_second(target, WARM_UP_SECONDS)
        rate = statistics.median(requests_per_second(target, effort.seconds) for _round in range(effort.rounds)) / 2
        measured: list[list[float]] = []
        quiet: list[list[float]] = []
        bare_ones: list[list[float]] = []
        for _window in range(effort.rounds * effort.seconds * WINDOWS):
            before = server.waited() + stolen()
            measured.append(latencies(target, rate, WINDOW_SECONDS))
            if server.waited() + stolen() - before <= DISTURBED_SECONDS:
                quiet.append(measured[-1])
            bare_ones.append(latencies(floor, rate, WINDOW_SECONDS))
    is_enough = len(quiet) * 4 >= len(measured)
    found = {OURS: quiet if is_enough else measured, "floor": bare_ones}
    ratios = {name: _median(_tail_of(window) for window in windows) for name, windows in found.items()}
    figures.note(
        workload="half_load",
        rate=round(rate),
        windows=len(measured),
        undisturbed=len(quiet),
        window_seconds=WINDOW_SECONDS,
        p50_us={name: _micros(_median(percentile(each, 0.5) for each in windows)) for name, windows in found.items()},
        p99_us={name: _micros(_median(percentile(each, 0.99) for each in windows)) for name, windows in found.items()},
        p99_over_p50={name: round(ratio, 2) for name, ratio in ratios.items()},
        of_all_windows=round(_median(map(_tail_of, measured)), 2),
        of_all_requests={
            name: round(_tail_of(sorted(itertools.chain(*windows))), 2)
            for name, windows in {OURS: measured, "floor": bare_ones}.items()
        },
    )
    if is_enough:
        figures.add("serving_p99_over_p50", round(ratios[OURS], 2), "<= 3")


def memory(figures: Figures, effort: Effort) -> None:
    """Of the master and all workers, once requests have been through all of the model.

    Both in the form that the bundle has and as scikit-learn's own objects; the figure is of the one that shares less.
    """
    served, trained = servers.serve_ours("large"), models.train("large")
    size = round(trained.pickled.stat().st_size / 1e6)
    ratios = []
    for scorer, form in {"auto": served.form, "native": "native"}.items():
        taken = {}
        for workers in (1, 4):
            with servers.ours(served, workers=workers, pinned=False, SCORER=scorer, **PATIENT) as server:
                target = Target(server.port, "/predict", _body(trained.rows))
                servers.check(target, peers.predictions, trained.answer(trained.rows), OURS)
                requests_per_second(target, max(2, effort.seconds), connections=2 * workers)
                taken[workers] = server.pss()
        mebibytes = {f"{workers}_workers": round(value / 2**20) for workers, value in taken.items()}
        figures.note(workload="memory", model_mb=size, form=form, pss_mib=mebibytes)
        ratios.append(taken[4] / taken[1])
    figures.add("serving_pss_4_workers_over_1", round(max(ratios), 2), "<= 1.6")


def start(figures: Figures, effort: Effort) -> None:
    """From start to ready, over what Python takes to import scikit-learn, in the same environment."""
    served = servers.serve_ours("linear")
    taken: dict[str, list[float]] = {"ready": [], "import": []}
    for turn in range(1 + STARTS * effort.rounds):
        found = _seconds_to_ready(served), _seconds_to_import(served)
        if turn:  # The first reads the files from the disk.
            for values, seconds in zip(taken.values(), found, strict=True):
                values.append(seconds)
    medians = {name: statistics.median(values) for name, values in taken.items()}
    figures.note(workload="start", form=served.form, seconds={k: round(v, 3) for k, v in medians.items()})
    figures.add("serving_start_over_import", round(medians["ready"] / medians["import"], 2), "<= 1.5")


FIGURES: dict[str, Callable[[Figures, Effort], None]] = {
    "serving_linear_over_best_peer": linear,
    "serving_forest_over_best_peer": forest,
    "serving_boosting_over_best_peer": boosting,
    "serving_native_over_fastapi": native,
    "serving_over_constant": constant,
    "serving_batch1000_over_best_peer": batch,
    "serving_p99_over_p50": tail,
    "serving_pss_4_workers_over_1": memory,
    "serving_start_over_import": start,
}


def soak(figures: Figures, minutes: float, scorer: str = "auto") -> None:
    """Memory under load with a model of 200 MB: that of the last tenth of the time over that of the fourth.

    The C library's allocator takes some thousands of large requests, and some megabytes, to settle; then it is flat.
    What grows steadily shows in a straight line through the second half as well: by how much memory would grow at its
    slope in the whole of the time.
    """
    served, trained = servers.serve_ours("large"), models.train("large")
    samples: list[int] = []
    requests = 0.0
    turns = max(20, round(minutes * 60 / 5))
    with servers.ours(served, workers=2, pinned=False, SCORER=scorer, **PATIENT) as server:
        one = Target(server.port, "/predict", _body(trained.rows[:1]))
        many = Target(server.port, "/predict", _body(trained.rows))
        servers.check(many, peers.predictions, trained.answer(trained.rows), OURS)
        for turn in range(turns):
            seconds = 5 if minutes * 12 >= turns else max(1, round(minutes * 60 / turns))
            requests += seconds * requests_per_second(many if turn % 2 else one, seconds, connections=4)
            samples.append(server.pss())
    tenth = turns // 10
    first, last = statistics.median(samples[3 * tenth : 4 * tenth]), statistics.median(samples[-tenth:])
    grows = second_half_growth(samples)
    figures.note(
        workload="soak",
        minutes=minutes,
        form=served.form if scorer == "auto" else scorer,
        requests=round(requests),
        mib_a_minute=round(grows * statistics.mean(samples) / 2**20 / minutes, 3),
        pss_mib=[round(value / 2**20, 1) for value in samples],
    )
    figures.add("serving_soak_memory_growth", round(last / first, 3), "<= 1.05")
    figures.add("serving_soak_memory_slope", round(1 + grows, 3), "<= 1.05")


def second_half_growth(samples: Sequence[float]) -> float:
    """The share of the mean that is added in the time of all ``samples``, at the slope of the second half of them."""
    half = samples[len(samples) // 2 :]
    slope = statistics.linear_regression(range(len(half)), half).slope
    return slope * len(samples) / statistics.mean(samples)


def _over_peers(
    figures: Figures, effort: Effort, name: str, count: int = 1, only: Iterable[str] = tuple(peers.PEERS)
) -> float:
    """Our requests a second over those of the best peer, with ``count`` rows a request."""
    served, trained = servers.serve_ours(name), models.train(name)
    with contextlib.ExitStack() as stack:
        targets = {OURS: _our_target(stack, served, trained, count)}
        started = {peer: stack.enter_context(_started(peer, trained)) for peer in only}
        for peer, server in started.items():
            targets.update(_peer_targets(peer, server, trained, count))
        found = _in_turns(targets, effort)
    best: dict[str, float] = {}
    for label, values in found.items():
        peer = label.partition(" ")[0]
        best[peer] = max(best.get(peer, 0.0), statistics.median(values))
    ours = best.pop(OURS)
    winner = max(best, key=lambda peer: best[peer])
    ratio = round(ours / best[winner], 2)
    figures.note(
        workload=name if count == 1 else f"{name}_{count}",
        form=served.form,
        requests_per_second=_rounded({OURS: ours, **best}),
        best_peer=winner,
        ratio=ratio,
        rounds={label: [round(value) for value in values] for label, values in found.items()},
    )
    return ratio


def _our_target(stack: contextlib.ExitStack, served: servers.Served, trained: models.Trained, count: int) -> Target:
    port = stack.enter_context(servers.ours(served)).port
    _check(Target(port, "/predict", _body(trained.rows[: models.CHECKED])), trained, models.CHECKED, OURS)
    target = Target(port, "/predict", _body(trained.rows[:count]))
    _check(target, trained, count, OURS)
    return target


@contextlib.contextmanager
def _started(peer: str, trained: models.Trained) -> Iterator[servers.Server]:
    program = peers.FOLDER / peer / "serve.py"
    with servers.script(peer, servers.peer_python(peer), program, str(trained.pickled)) as server:
        yield server


def _peer_targets(name: str, server: servers.Server, trained: models.Trained, count: int) -> Mapping[str, Target]:
    """One target a way in which the peer is written, each proven right: on both classes, and on what is sent."""
    peer = peers.PEERS[name]
    targets = {}
    for path in peer.paths:
        label = name if len(peer.paths) == 1 else f"{name} {path}"
        many = Target(server.port, path, peer.body(trained.rows[: models.CHECKED]))
        server.wait_until(many.ask)
        _check(many, trained, models.CHECKED, label, peer.labels)
        targets[label] = Target(server.port, path, peer.body(trained.rows[:count]))
        _check(targets[label], trained, count, label, peer.labels)
    return targets


def _own_constant(served: servers.Served, answer: str) -> contextlib.AbstractContextManager[servers.Server]:
    program = Path(__file__).with_name("own_constant.py")
    return servers.script("own_constant", served.python, program, answer, str(served.bundle))


def _check(
    target: Target,
    trained: models.Trained,
    count: int,
    name: str,
    labels: Callable[[Any], list[Any]] = peers.predictions,
) -> None:
    servers.check(target, labels, trained.answer(trained.rows[:count]), name)


def _in_turns(targets: Mapping[str, Target], effort: Effort) -> dict[str, list[float]]:
    """Requests a second of each target in each round; each is alone while it is measured."""
    found: dict[str, list[float]] = {name: [] for name in targets}
    for name, target in targets.items():
        _measured(name, target, WARM_UP_SECONDS)
    for _round in range(effort.rounds):
        for name, target in targets.items():
            found[name].append(_measured(name, target, effort.seconds))
    return found


def _measured(name: str, target: Target, seconds: int) -> float:
    try:
        rate = requests_per_second(target, seconds)
    except StepError as error:
        raise StepError(f"{name}: {error}") from error
    print(f"{name}: {rate:.0f} requests/s", file=sys.stderr)
    return rate


def _tail_of(window: Sequence[float]) -> float:
    """p99 over p50 of sorted latencies."""
    return (percentile(window, 0.99) or 0.0) / (percentile(window, 0.5) or 1.0)


def _median(values: Iterable[float | None]) -> float:
    return statistics.median(value or 0.0 for value in values)


def _micros(seconds: float) -> int:
    return round(seconds * 1e6)


def _body(rows: peers.Rows) -> bytes:
    return json.dumps(peers.instances(rows), separators=(",", ":")).encode()


def _rounded(rates: Mapping[str, float]) -> dict[str, int]:
    return {name: round(rate) for name, rate in rates.items()}


def _answer_of(target: Target) -> list[Any]:
    """The headers that the application gives, and the body, of our server's answer."""
    connection = http.client.HTTPConnection(HOST, target.port, timeout=30)
    with contextlib.closing(connection):
        connection.request("POST", target.path, target.body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        content = answer.read().decode()
    # What gunicorn adds by itself, it adds to the constant as well.
    headers = [pair for pair in answer.getheaders() if pair[0].lower() not in ("date", "server", "connection")]
    return [headers, content]


def _seconds_to_ready(served: servers.Served) -> float:
    port = servers.free_port()
    begun = time.perf_counter()
    server = servers.Server(
        OURS, servers.our_command(served, pinned=False), port, servers.our_environment(served, port, 1)
    )
    with contextlib.closing(server):
        server.wait_until(lambda: servers.ready(port), pause=0.002)
        return time.perf_counter() - begun


def _seconds_to_import(served: servers.Served) -> float:
    begun = time.perf_counter()
    subprocess.run([served.python, "-c", "import sklearn"], check=True, env=os.environ)
    return time.perf_counter() - begun
