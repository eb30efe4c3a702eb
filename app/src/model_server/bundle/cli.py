# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``model-bundle``: build, verify and inspect bundles."""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import asdict
from pathlib import Path

from model_server.bundle.contract import Contract, encode_contract, parse_contract
from model_server.bundle.golden import mismatches
from model_server.bundle.manifest import (
    CONTRACT,
    GOLDEN,
    LOCK,
    BundleError,
    Manifest,
    pack,
    read_manifest,
    read_verified,
    verify,
)
from model_server.scoring.formats import FORMATS
from model_server.scoring.forms.registry import FORMS, NATIVE


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except BundleError as error:
        print(f"model-bundle: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="model-bundle", description="Build, verify and inspect model bundles.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    build = commands.add_parser("build", help="build a bundle from a model and rows of its data")
    build.set_defaults(run=_build)
    build.add_argument(
        "model", type=Path, help="the file of the model; it is loaded, which runs its pickle if it is one"
    )
    build.add_argument("--name", required=True, help="the model's name, such as tumour")
    build.add_argument("--version", required=True, help="the model's version, such as 3")
    build.add_argument("--data", type=Path, required=True, help="rows the model was trained on: a .csv or .parquet")
    build.add_argument("--out", type=Path, required=True, help="the folder to write the bundle to; missing or empty")
    build.add_argument("--tar", type=Path, help="write the bundle as a tar to this file, too")
    build.add_argument(
        "--target", action="append", default=[], help="a column of the data that the model does not take; repeatable"
    )
    build.add_argument("--format", choices=list(FORMATS), default="pickle", help="how the model was written")
    build.add_argument(
        "--date", action="append", default=[], help="a column of text that is dates, as a .csv has them; repeatable"
    )
    build.add_argument(
        "--trust", action="append", default=[], metavar="TYPE", help="a type that a skops file may have; repeatable"
    )
    build.add_argument(
        "--module", action="append", type=Path, default=[], metavar="FILE",
        help="a .py with classes of the model, to be shipped in the bundle; repeatable",
    )  # fmt: skip
    build.add_argument(
        "--scorer", choices=[NATIVE, *FORMS], help="the form to serve in (default: the fastest that is proven equal)"
    )
    build.add_argument(
        "--timings",
        action="store_true",
        help="put into the manifest how fast each form is; no two builds are equal",
    )
    build.add_argument("--golden", type=_positive, default=20, metavar="N", help="golden rows to keep (default: 20)")
    build.add_argument(
        "--tolerance", type=_tolerance, default=1e-6, help="how far relatively an answer may be from a golden row's"
    )
    build.add_argument(
        "--absolute-tolerance", type=_tolerance, default=1e-9, help="how far it may be from it in any case"
    )

    verify_ = commands.add_parser("verify", help="check that a bundle has exactly the files of its manifest")
    verify_.set_defaults(run=_verify)
    verify_.add_argument("bundle", type=Path, help="a bundle's folder or tar")
    verify_.add_argument(
        "--predict",
        action="store_true",
        help="load what is served, which may run a pickle, and compare the golden rows",
    )

    inspect = commands.add_parser("inspect", help="tell what is in a bundle; nothing of it is loaded")
    inspect.set_defaults(run=_inspect)
    inspect.add_argument("bundle", type=Path, help="a bundle's folder or tar")
    inspect.add_argument("--json", action="store_true", help="as one JSON document")
    return parser


def _build(options: argparse.Namespace) -> None:
    try:
        from model_server.bundle.build import build, read_rows
    except ModuleNotFoundError as error:
        raise BundleError(f"building needs {error.name}: install modelfleet-model-server[build]") from None
    manifest = build(
        options.model,
        options.out,
        name=options.name,
        version=options.version,
        rows=read_rows(options.data, tuple(options.date)),
        targets=tuple(options.target),
        model_format=options.format,
        golden_rows=options.golden,
        relative_tolerance=options.tolerance,
        absolute_tolerance=options.absolute_tolerance,
        scorer=options.scorer,
        timings=options.timings,
        trusted=tuple(options.trust),
        modules=tuple(options.module),
    )
    if options.tar:
        pack(options.out, options.tar)
    print(f"{manifest.name} {manifest.release} in {options.out}")
    for line in _scorer(manifest):
        print(line)


def _verify(options: argparse.Namespace) -> None:
    manifest = verify(options.bundle)
    done = f"{len(manifest.files)} files"
    if options.predict:
        done += f", {_compare_golden(options.bundle, manifest)} golden rows"
    print(f"{manifest.name} {manifest.release}: {done} as they should be")


def _compare_golden(bundle: Path, manifest: Manifest) -> int:
    from model_server.scoring.decode import decode
    from model_server.scoring.encode import encode
    from model_server.scoring.errors import ScoringError
    from model_server.scoring.load import load

    scorer = load(bundle)
    scorer.start()
    golden = json.loads(read_verified(bundle, GOLDEN, manifest))
    outputs = ("predictions", "probabilities", "scores")
    wanted = {key: golden[key] for key in outputs if golden.get(key) is not None}
    try:
        body = json.dumps({"instances": golden["instances"], "probabilities": "probabilities" in wanted}).encode()
        found = json.loads(encode(scorer.predict(decode(body, scorer.contract))))
    except ScoringError as error:
        raise BundleError(f"{bundle}: golden rows: {error}") from error
    for key, expected in wanted.items():
        if lines := mismatches(expected, found[key], golden["tolerance"], limit=1):
            raise BundleError(f"{bundle}: golden rows: {key}: {lines[0]}")
    return len(golden["instances"])


def _inspect(options: argparse.Namespace) -> None:
    manifest = read_manifest(options.bundle)
    contract = parse_contract(read_verified(options.bundle, CONTRACT, manifest), str(options.bundle))
    lock = read_verified(options.bundle, LOCK, manifest).decode().split()
    if options.json:
        document = {
            **asdict(manifest),
            "release": manifest.release,
            "contract": encode_contract(contract),
            "lock": lock,
        }
        print(json.dumps(document, indent=2))
        return
    print(f"{manifest.name} {manifest.version}, release {manifest.release}")
    print(f"digest   {manifest.digest}")
    print(f"model    {manifest.model_path} ({manifest.model_format}, Python {manifest.python})")
    for line in _scorer(manifest):
        print(line)
    taken = "a DataFrame" if contract.columns else "a series" if contract.series else "an array"
    print(f"takes    {taken} of {len(contract.inputs)} columns")
    for line in _table(contract):
        print(f"  {line}")
    for output in contract.outputs:
        classes = f", classes {list(output.classes)}" if output.classes else ""
        print(f"gives    {output.name}: {output.dtype} {list(output.shape)}{classes}")
    print(f"needs    {' '.join(lock)}")
    for entry in manifest.files:
        print(f"file     {entry.path}: {entry.size} bytes, sha256 {entry.sha256}")


def _scorer(manifest: Manifest) -> list[str]:
    """The form that serves, and why."""
    lines = [f"scorer   {manifest.scorer}"]
    for tried in manifest.tried:
        said = tried.get("reason", "")
        if tried.get("equal") and "rows" in tried:
            said = f"equal on {tried['rows']} rows, largest difference {tried.get('largest_difference', 0):g}"
        for rows, microseconds in tried.get("microseconds", {}).items():
            said += f"{', ' if said else ''}{microseconds:g} µs for {rows} row{'' if rows == '1' else 's'}"
        lines.append(f"  {tried['form']}: {said}")
    return lines


def _table(contract: Contract) -> list[str]:
    width = max(map(len, contract.names))
    lines = []
    for column in contract.inputs:
        seen = "" if column.minimum is None else f" from {column.minimum:g} to {column.maximum:g}"
        seen = f" of {list(column.categories)}" if column.categories else seen
        lines.append(f"{column.name:<{width}} {column.dtype}{' or null' if column.nullable else ''}{seen}")
    return lines


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 1, found {text}")
    return int(text)


def _tolerance(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to below 1, found {text}")
    return value


if __name__ == "__main__":
    sys.exit(main())
