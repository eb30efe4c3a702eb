# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Train the demo's model ``tumour`` in three versions and bundle them, and bundle releases that are bad on purpose.

``python -m testbed.models --out DIR`` writes ``DIR/rows.csv``, ``DIR/tumour-1.pkl`` and ``DIR/tumour-1/``, and so on.
``python -m testbed.models --out DIR --bad crash --version 4`` writes ``DIR/tumour-4/``, whose manifest is right in
every digest: only the gates on a host can tell that it is bad.
"""

from __future__ import annotations

import argparse
import json
import operator
import os
import pickle
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from model_server.bundle.build import build, write
from model_server.bundle.manifest import GOLDEN, read_manifest
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

NAME = "tumour"
TARGET = "target"
MODELS: dict[str, Callable[[], Any]] = {
    "1": lambda: make_pipeline(StandardScaler(), LogisticRegression(C=1.0)),
    "2": lambda: make_pipeline(StandardScaler(), LogisticRegression(C=0.1)),
    "3": lambda: GradientBoostingClassifier(n_estimators=20, max_depth=2, random_state=3),
}


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
    """A pickle that fills 3 GiB of memory when it is loaded."""
    # In pieces: a machine smaller than that refuses the whole, and nothing would have been filled.
    program = "blocks = [b'x' * (64 << 20) for block in range(48)]"
    return {**files, "model.pkl": pickle.dumps(Call(exec, program))}


def task_hog(files: dict[str, bytes]) -> dict[str, bytes]:
    """A pickle that starts threads without end when it is loaded."""
    program = "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(60,), daemon=True).start()"
    return {**files, "model.pkl": pickle.dumps(Call(exec, program))}


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


BAD = {kind.__name__: kind for kind in (crash, memory_hog, never_ready, skew, task_hog, wrong)}


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
    model = MODELS[version]().fit(frame.drop(columns=TARGET), frame[TARGET])
    pickled = out / f"{NAME}-{version}.pkl"
    pickled.write_bytes(pickle.dumps(model))
    manifest = build(pickled, bundle, name=NAME, version=version, rows=frame, targets=(TARGET,))
    print(f"{NAME} {manifest.release} in {bundle}", file=sys.stderr)
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


def build_all(out: Path) -> None:
    """All good versions below ``out``, a request in ``request.json``, and each version's answer in ``answers.json``.

    The answers are scikit-learn's own: what the model servers say is compared with them.
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
    (out / "request.json").write_text(json.dumps(request))
    (out / "answers.json").write_text(json.dumps(answers))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m testbed.models", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="the folder to write below")
    parser.add_argument("--bad", choices=sorted(BAD), help="bundle a bad release instead; needs --version")
    parser.add_argument("--version", help="the bad release's version, or the one good version to make")
    options = parser.parse_args()
    if options.bad:
        if not options.version or options.version in MODELS:
            parser.error(f"--bad needs a --version other than {', '.join(MODELS)}")
        bad_bundle(options.out, options.bad, options.version)
        return
    if options.version and options.version not in MODELS:
        parser.error(f"--version: expected {', '.join(MODELS)}, found {options.version}")
    if options.version:
        good_bundle(options.out, options.version)
    else:
        build_all(options.out)


if __name__ == "__main__":
    main()
