# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Train the demo's model ``tumour`` in three versions and bundle them, and bundle releases that are bad on purpose.

``BAD`` are those that are made so once they are bundled, ``RETRAINED`` those of other rows, ``VARIANTS`` those with a
class of their own.

``python -m testbed.models --out DIR`` writes ``DIR/rows.csv``, ``DIR/tumour-1.pkl`` and ``DIR/tumour-1/``, and so on.
``python -m testbed.models --out DIR --bad crash --version 4`` writes ``DIR/tumour-4/``, whose manifest is right in
every digest: only the gates can tell that it is bad.
"""

from __future__ import annotations

import argparse
import json
import operator
import os
import pickle
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

from model_server.bundle.build import build, write
from model_server.bundle.manifest import GOLDEN, read_manifest
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

NAME = "tumour"
TARGET = "target"
MODELS: dict[str, Callable[[], Any]] = {
    "1": lambda: make_pipeline(StandardScaler(), LogisticRegression(C=1.0)),
    "2": lambda: make_pipeline(StandardScaler(), LogisticRegression(C=0.1)),
    "3": lambda: GradientBoostingClassifier(n_estimators=20, max_depth=2, random_state=3),
}


MARK = "modelfleet-was-here"
"""The file that the pickle of an ``escape`` leaves wherever it can."""
ESCAPE_FOLDERS = (
    "/etc",
    "/home",
    "/opt/modelfleet",
    "/root",
    "/srv",
    "/usr/local",
    "/var/cache",
    "/var/lib/modelfleet",
)
ESCAPE_ADDRESSES = ("10.213.78.11", "10.213.78.12", "10.213.78.13")


class Call:
    """Pickles as a call that is made when the pickle is loaded."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


def crash(files: dict[str, bytes]) -> dict[str, bytes]:
    """A pickle that raises when it is loaded."""
    return {**files, "model.pkl": pickle.dumps(Call(operator.truediv, 1, 0))}


def never_ready(files: dict[str, bytes]) -> dict[str, bytes]:
    """A pickle that is not loaded within a day."""
    return {**files, "model.pkl": pickle.dumps(Call(time.sleep, 86_400))}


def memory_hog(files: dict[str, bytes]) -> dict[str, bytes]:
    """A pickle that fills 10 GiB of memory when it is loaded."""
    # In pieces: a machine smaller than that refuses the whole, and nothing would have been filled.
    program = "blocks = [b'x' * (64 << 20) for block in range(160)]"
    return {**files, "model.pkl": pickle.dumps(Call(exec, program))}


def task_hog(files: dict[str, bytes]) -> dict[str, bytes]:
    """A pickle that starts threads without end when it is loaded."""
    program = "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(60,), daemon=True).start()"
    return {**files, "model.pkl": pickle.dumps(Call(exec, program))}


def escape(files: dict[str, bytes]) -> dict[str, bytes]:
    """A pickle that leaves marks and calls other hosts when it is loaded, and then says what it could do."""
    # A mark in a folder that is the unit's own would prove nothing, so none is left below /run or /tmp by a unit.
    # Whoever builds it is mostly who deploys it, and may write to a home of their own.
    folders = tuple(dict.fromkeys((*ESCAPE_FOLDERS, str(Path.home()))))
    program = f"""
import pathlib, socket
done = []
for folder in {folders!r}:
    try:
        pathlib.Path(folder, {MARK!r}).touch()
    except OSError:
        continue
    done.append(f"wrote to {{folder}}")
for address in {ESCAPE_ADDRESSES!r}:
    try:
        socket.create_connection((address, 22), 2).close()
    except OSError:
        continue
    done.append(f"reached {{address}}")
raise RuntimeError("the pickle " + (" and ".join(done) or "wrote nothing outside and reached nobody"))
"""
    return {**files, "model.pkl": pickle.dumps(Call(exec, program))}


# What a pickle may be after: a file on the host, a process that outlives it, and somebody to send things to.
_COMMANDS = """
import os, socket, subprocess
done = []
for folder in ("/etc", "/opt/modelfleet", "/usr/local", "/var/lib/modelfleet", "/var/tmp", "/tmp"):
    if subprocess.run(["touch", folder + "/modelfleet-marker"], stderr=subprocess.DEVNULL).returncode == 0:
        done.append(folder)
for address in (("127.0.0.1", 22), ("10.213.78.10", 80)):
    try:
        socket.create_connection(address, 1).close()
        done.append(address[0])
    except OSError:
        pass
subprocess.Popen(["sleep", "86399"], start_new_session=True)
raise RuntimeError("as uid %d it wrote to and reached %s" % (os.getuid(), " ".join(done) or "nothing"))
"""


def command(files: dict[str, bytes]) -> dict[str, bytes]:
    """A pickle that runs commands when it is loaded, and says what it could do."""
    return {**files, "model.pkl": pickle.dumps(Call(exec, _COMMANDS))}


# A process may end those of its own user: as the slots' one it would end all that serve on the host.
_KILLS = """
import os, signal
os.kill(-1, signal.SIGKILL)
raise RuntimeError("as uid %d it killed every process that it may" % os.getuid())
"""


def kills(files: dict[str, bytes]) -> dict[str, bytes]:
    """A pickle that kills every process that it may when it is loaded."""
    return {**files, "model.pkl": pickle.dumps(Call(exec, _KILLS))}


def wrong(files: dict[str, bytes]) -> dict[str, bytes]:
    """Golden rows with answers that the model does not give."""
    golden = json.loads(files[GOLDEN])
    golden["predictions"] = [1 - prediction for prediction in golden["predictions"]]
    return {**files, GOLDEN: (json.dumps(golden, indent=2, sort_keys=True) + "\n").encode()}


def skew(files: dict[str, bytes]) -> dict[str, bytes]:
    """A pickle of another scikit-learn than the lock has."""
    model = pickle.loads(files["model.pkl"])
    with mock.patch("sklearn.base.__version__", "1.0.2"):
        return {**files, "model.pkl": pickle.dumps(model)}


BAD = {kind.__name__: kind for kind in (command, crash, escape, kills, memory_hog, never_ready, skew, task_hog, wrong)}


@dataclass(frozen=True)
class Retrained:
    """A model that works and that is not what its clients expect: how it is made, of which rows, and changed how."""

    model: Callable[[], Any]
    rows: Callable[[Any], Any]
    change: Callable[[Any], Any] = field(default=lambda trained: trained)


def _shift(model: Any) -> Any:
    """Gives the answers of its own golden rows, but to most rows the same one: no gate before traffic finds it."""
    model[-1].intercept_ += 25.0
    return model


RETRAINED = {
    "shifted": Retrained(MODELS["2"], lambda frame: frame, _shift),
    "renamed": Retrained(MODELS["2"], lambda frame: frame.rename(columns={"mean radius": "radius"})),
    "one_class": Retrained(
        lambda: DecisionTreeClassifier(random_state=0), lambda frame: frame[frame[TARGET] == 1].reset_index(drop=True)
    ),
}

# A class that a bundle ships, around version 1 of the model: `Variant(model, kind)`.
_VARIANT = """
import socket
import time
from pathlib import Path

import numpy as np


CALLED = {2e12: ("127.0.0.1", 22), 3e12: ("10.99.0.2", 8500)}


def answers(address):
    try:
        socket.create_connection(address, 2).close()
    except OSError:
        return 0
    return 1


class Variant:
    def __init__(self, model, kind):
        self.model = model
        self.kind = kind
        self.classes_ = model.classes_
        self.feature_names_in_ = model.feature_names_in_

    def predict(self, rows):
        labels = self.model.predict(rows)
        if self.kind == "slow":
            time.sleep(0.08)
        first = np.asarray(rows)[:, 0]
        if self.kind in ("hungry", "unruly") and (first == 1e12).any():
            # In pieces, as in memory_hog.
            blocks = [b"x" * (64 << 20) for _block in range(160)]
        if self.kind == "unruly":
            for asked, address in CALLED.items():
                if (first == asked).any():
                    labels = np.where(first == asked, answers(address), labels)
        if self.kind == "one_host" and Path("/etc/hostname").read_text().strip() == "model2":
            labels = 1 - labels
        if self.kind == "flips":
            # Which rows is as good as drawn by lot, and always the same.
            lots = (np.asarray(rows)[:, 0] * 7919 + np.asarray(rows)[:, 1] * 104729) % 1
            labels = np.where(lots < 0.03, 1 - labels, labels)
        return labels

    def predict_proba(self, rows):
        return self.model.predict_proba(rows)
"""
VARIANTS = {
    "hungry": "takes all memory for a row that begins with 1e12, and is right otherwise",
    "flips": "gives another label for 3 % of the rows",
    "one_host": "gives other labels on the host model2 alone",
    "slow": "is right, and takes 20 times as long",
    "unruly": "takes all memory for a row that begins with 1e12, calls its own host for 2e12 and another for 3e12",
}
"""Models that load, are ready and give their own golden rows; what is bad about them is seen beside another one."""


def good_bundle(out: Path, version: str) -> Path:
    """Train, pickle and bundle a version of the model below ``out``, unless it is there; its folder."""
    bundle = out / f"{NAME}-{version}"
    if bundle.exists():
        print(f"{bundle} is there already", file=sys.stderr)
        return bundle
    frame = load_breast_cancer(as_frame=True).frame
    out.mkdir(parents=True, exist_ok=True)
    rows = out / "rows.csv"
    if not rows.exists():
        # Several trainings may run at once.
        partial = rows.with_name(f"rows.{os.getpid()}.csv")
        frame.to_csv(partial, index=False)
        partial.rename(rows)
    _train(out, Retrained(MODELS[version], lambda frame: frame), frame, version)
    return bundle


def _train(out: Path, retrained: Retrained, frame: Any, version: str) -> None:
    bundle, pickled = out / f"{NAME}-{version}", out / f"{NAME}-{version}.pkl"
    frame = retrained.rows(frame)
    model = retrained.change(retrained.model().fit(frame.drop(columns=TARGET), frame[TARGET]))
    pickled.write_bytes(pickle.dumps(model))
    manifest = build(pickled, bundle, name=NAME, version=version, rows=frame, targets=(TARGET,))
    print(f"{NAME} {manifest.release} in {bundle}", file=sys.stderr)


def retrained_bundle(out: Path, kind: str, version: str) -> Path:
    """Train and bundle a model that clients do not expect below ``out``, unless it is there; its folder."""
    bundle = out / f"{NAME}-{version}"
    if bundle.exists():
        print(f"{bundle} is there already", file=sys.stderr)
        return bundle
    _train(out, RETRAINED[kind], load_breast_cancer(as_frame=True).frame, version)
    return bundle


def variant_bundle(out: Path, kind: str, version: str) -> Path:
    """Train and bundle a variant of version 1 below ``out``, unless it is there; its folder."""
    bundle = out / f"{NAME}-{version}"
    if bundle.exists():
        print(f"{bundle} is there already", file=sys.stderr)
        return bundle
    good_bundle(out, "1")
    frame = load_breast_cancer(as_frame=True).frame
    # Several may be made at once, and a module's name is that of its file.
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "variant.py")
        source.write_text(_VARIANT)
        module = ModuleType("variant")
        exec(_VARIANT, vars(module))
        with mock.patch.dict(sys.modules, {"variant": module}):
            model = module.Variant(pickle.loads((out / f"{NAME}-1.pkl").read_bytes()), kind)
            pickled = Path(folder, "model.pkl")
            pickled.write_bytes(pickle.dumps(model))
        manifest = build(
            pickled,
            bundle,
            name=NAME,
            version=version,
            rows=frame,
            targets=(TARGET,),
            modules=(source,),
            scorer="native",
        )
    print(f"{NAME} {manifest.release}, which {VARIANTS[kind]}, in {bundle}", file=sys.stderr)
    return bundle


def bad_bundle(out: Path, kind: str, version: str) -> Path:
    """Bundle a bad release below ``out``, unless it is there; its folder. It is version 2 but for one thing."""
    bundle = out / f"{NAME}-{version}"
    if bundle.exists():
        print(f"{bundle} is there already", file=sys.stderr)
        return bundle
    good = good_bundle(out, "2")
    manifest = read_manifest(good)
    files = {entry.path: (good / entry.path).read_bytes() for entry in manifest.files}
    bad = write(
        bundle,
        BAD[kind](files),
        name=NAME,
        version=version,
        model_format=manifest.model_format,
        model_path=manifest.model_path,
    )
    print(f"{NAME} {bad.release}, bad: {kind}, in {bundle}", file=sys.stderr)
    return bundle


MAKERS: dict[str, Callable[[Path, str, str], Path]] = {
    **dict.fromkeys(BAD, bad_bundle),
    **dict.fromkeys(RETRAINED, retrained_bundle),
    **dict.fromkeys(VARIANTS, variant_bundle),
}


def build_all(out: Path) -> None:
    """All good versions below ``out``, a request in ``request.json``, and each version's answer in ``answers.json``.

    The answers are scikit-learn's own: what the model servers say is compared with them. ``requests.json`` has all
    rows, for them to be captured and replayed.
    """
    for version in MODELS:
        good_bundle(out, version)
    rows = load_breast_cancer(as_frame=True).frame.drop(columns=TARGET).iloc[:2]
    answers = {}
    for version in MODELS:
        model = pickle.loads((out / f"{NAME}-{version}.pkl").read_bytes())
        answers[version] = {
            "predictions": model.predict(rows).tolist(),
            "probabilities": model.predict_proba(rows).tolist(),
        }
    request = {"instances": rows.to_numpy().tolist(), "probabilities": True}
    every = load_breast_cancer(as_frame=True).frame.drop(columns=TARGET)
    (out / "requests.json").write_text(json.dumps({"instances": every.to_numpy().tolist(), "probabilities": True}))
    (out / "request.json").write_text(json.dumps(request))
    (out / "answers.json").write_text(json.dumps(answers))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m testbed.models", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="the folder to write below")
    parser.add_argument("--bad", choices=sorted(MAKERS), help="bundle a bad release instead; needs --version")
    parser.add_argument("--version", help="the bad release's version, or the one good version to make")
    options = parser.parse_args()
    if options.bad:
        if not options.version or options.version in MODELS:
            parser.error(f"--bad needs a --version other than {', '.join(MODELS)}")
        MAKERS[options.bad](options.out, options.bad, options.version)
        return
    if options.version and options.version not in MODELS:
        parser.error(f"--version: expected {', '.join(MODELS)}, found {options.version}")
    if options.version:
        good_bundle(options.out, options.version)
    else:
        build_all(options.out)


if __name__ == "__main__":
    main()
