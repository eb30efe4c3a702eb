# Copyright: (c) 2026, modelfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``model-bundle``: build, sign, verify, inspect and publish bundles."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from model_server.bundle import publish
from model_server.bundle.contract import Contract, encode_contract, parse_contract
from model_server.bundle.golden import mismatches
from model_server.bundle.manifest import (
    CONTRACT,
    GOLDEN,
    LOCK,
    SBOM,
    BundleError,
    Manifest,
    pack,
    read_manifest,
    read_seal,
    read_verified,
    verify,
)
from model_server.bundle.registry import RegistryError
from model_server.bundle.signature import (
    SignatureError,
    Trust,
    check_intact,
    check_signature,
    read_allowed_signers,
    read_revoked_keys,
)
from model_server.libraries import let_scikit_learn_check
from model_server.scoring.formats import FORMATS
from model_server.scoring.forms.registry import FORMS, NATIVE


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    let_scikit_learn_check()
    try:
        options.run(options)
    except (BundleError, RegistryError, SignatureError) as error:
        print(f"model-bundle: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="model-bundle", description="Build, sign, verify, inspect and publish model bundles."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    build = commands.add_parser("build", help="build a bundle from a model and rows of its data")
    build.set_defaults(run=_build)
    build.add_argument(
        "model", type=Path, help="the file of the model; it is loaded, which runs its pickle if it is one"
    )
    build.add_argument("--name", required=True, help="the model's name, such as tumour")
    build.add_argument("--version", required=True, help="the model's version, such as 3")
    build.add_argument("--data", type=Path, required=True, help="rows the model was trained on: a .csv or .parquet")
    build.add_argument("--format", choices=list(FORMATS), default="pickle", help="how the model was written")
    _add_build_options(build)

    from_mlflow = commands.add_parser("from-mlflow", help="build a bundle from a scikit-learn model that MLflow saved")
    from_mlflow.set_defaults(run=_from_mlflow)
    from_mlflow.add_argument(
        "source", help="models:/NAME@ALIAS, models:/NAME/VERSION, runs:/ID/PATH or a folder; it is loaded"
    )
    from_mlflow.add_argument("--name", help="the model's name (default: the one in the registry)")
    from_mlflow.add_argument("--version", help="the model's version (default: the one in the registry)")
    from_mlflow.add_argument(
        "--tracking-uri", metavar="URI", help="MLflow's server (default: MLFLOW_TRACKING_URI of the environment)"
    )
    from_mlflow.add_argument(
        "--data", type=Path, help="rows the model was trained on: a .csv or .parquet (default: its input example)"
    )
    _add_build_options(from_mlflow)

    verify_ = commands.add_parser("verify", help="check that a bundle has exactly the files of its manifest")
    verify_.set_defaults(run=_verify)
    verify_.add_argument("bundle", type=Path, help="a bundle's folder or tar")
    verify_.add_argument(
        "--predict",
        action="store_true",
        help="load what is served, which may run a pickle, and compare the golden rows",
    )

    verify_.add_argument(
        "--allowed-signers", type=Path, metavar="FILE", help="check the signature, too, against this file of signers"
    )
    verify_.add_argument("--revoked", type=Path, metavar="FILE", help="keys that do not count: a list, or a KRL")
    verify_.add_argument(
        "--signer", action="append", default=[], help="the principal that must have signed; one of them, if repeated"
    )

    keygen = commands.add_parser("keygen", help="make a key for signatures; prints its line for allowed_signers")
    keygen.set_defaults(run=_keygen)
    keygen.add_argument("key", type=Path, help="the file for the private key; the public one is beside it, as .pub")
    keygen.add_argument("--principal", help="whose key it is (default: USER@HOST)")
    keygen.add_argument("--no-passphrase", action="store_true", help="whoever reads the file can sign")

    sign = commands.add_parser("sign", help="sign a bundle")
    sign.set_defaults(run=_sign)
    sign.add_argument("bundle", type=Path, help="a bundle's folder or tar")
    sign.add_argument(
        "--key", type=Path, required=True, help="a private key, or a public one whose private half is in ssh-agent"
    )

    publish_ = commands.add_parser("publish", help="put a bundle into a registry")
    publish_.set_defaults(run=_publish)
    publish_.add_argument("bundle", type=Path, help="a bundle's folder or tar; it stays as it is")
    publish_.add_argument("--registry", required=True, metavar="PLACE", help="a folder, or an http(s) address")
    publish_.add_argument("--key", type=Path, help="sign it on the way, as sign does")
    publish_.add_argument("--alias", help="a name for this version from now on, such as champion")

    inspect = commands.add_parser("inspect", help="tell what is in a bundle; nothing of it is loaded")
    inspect.set_defaults(run=_inspect)
    inspect.add_argument("bundle", type=Path, help="a bundle's folder or tar")
    inspect.add_argument("--json", action="store_true", help="as one JSON document")
    return parser


def _add_build_options(parser: argparse.ArgumentParser) -> None:
    """What the commands that build a bundle have in common."""
    parser.add_argument("--out", type=Path, required=True, help="the folder to write the bundle to; missing or empty")
    parser.add_argument("--sign", type=Path, metavar="KEY", help="sign the bundle with this key")
    parser.add_argument("--tar", type=Path, help="write the bundle as a tar to this file, too")
    parser.add_argument(
        "--target", action="append", default=[], help="a column of the data that the model does not take; repeatable"
    )
    parser.add_argument(
        "--date", action="append", default=[], help="a column of text that is dates, as a .csv has them; repeatable"
    )
    parser.add_argument(
        "--trust", action="append", default=[], metavar="TYPE", help="a type that a skops file may have; repeatable"
    )
    parser.add_argument(
        "--module", action="append", type=Path, default=[], metavar="FILE",
        help="a .py with classes of the model, to be shipped in the bundle; repeatable",
    )  # fmt: skip
    parser.add_argument(
        "--scorer", choices=[NATIVE, *FORMS], help="the form to serve in (default: the first that is proven equal)"
    )
    parser.add_argument(
        "--timings",
        action="store_true",
        help="serve in the fastest form that is proven equal, by the time that each takes here; the manifest has "
        "the times, and no two builds are the same",
    )
    parser.add_argument("--golden", type=_positive, default=20, metavar="N", help="golden rows to keep (default: 20)")
    parser.add_argument(
        "--tolerance", type=_tolerance, default=1e-6, help="how far relatively an answer may be from a golden row's"
    )
    parser.add_argument(
        "--absolute-tolerance", type=_tolerance, default=1e-9, help="how far it may be from it in any case"
    )


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
        model_format=options.format,
        **_build_options(options),
    )
    _built(manifest, options)


def _from_mlflow(options: argparse.Namespace) -> None:
    try:
        from model_server.bundle.mlflow import from_mlflow
    except ModuleNotFoundError as error:
        raise BundleError(f"from-mlflow needs {error.name}: install modelfleet-model-server[build,mlflow]") from None
    manifest = from_mlflow(
        options.source,
        options.out,
        name=options.name,
        version=options.version,
        tracking_uri=options.tracking_uri,
        data=options.data,
        dates=tuple(options.date),
        **_build_options(options),
    )
    _built(manifest, options)
    if not options.data:
        count = len(json.loads(read_verified(options.out, GOLDEN, manifest))["instances"])
        print(
            f"golden   {count} row{'s' if count > 1 else ''}, for there is the input example alone: --data gives more"
        )


def _build_options(options: argparse.Namespace) -> dict[str, Any]:
    """What ``_add_build_options`` added, as ``build`` has it."""
    return {
        "targets": tuple(options.target),
        "golden_rows": options.golden,
        "relative_tolerance": options.tolerance,
        "absolute_tolerance": options.absolute_tolerance,
        "scorer": options.scorer,
        "timings": options.timings,
        "trusted": tuple(options.trust),
        "modules": tuple(options.module),
    }


def _built(manifest: Manifest, options: argparse.Namespace) -> None:
    if options.sign:
        publish.sign_bundle(options.out, options.sign)
    if options.tar:
        pack(options.out, options.tar)
    print(f"{manifest.name} {manifest.release} in {options.out}")
    for line in [*_scorer(manifest), *_speeds(options.out, manifest, (manifest.scorer, NATIVE))]:
        print(line)


def _verify(options: argparse.Namespace) -> None:
    manifest = verify(options.bundle)
    done = f"{len(manifest.files)} files"
    if options.predict:
        done += f", {_compare_golden(options.bundle, manifest)} golden rows"
    if options.allowed_signers:
        done += f", {_check_signature(options, manifest)}"
    elif options.revoked or options.signer:
        raise BundleError("verify: expected --allowed-signers with --revoked or --signer, found none")
    print(f"{manifest.name} {manifest.release}: {done} as they should be")
    if options.predict:
        # Of the form that serves alone: a bundle in a compiled form is verified without unpickling anything.
        for line in _speeds(options.bundle, manifest, (manifest.scorer,)):
            print(line)


def _check_signature(options: argparse.Namespace, manifest: Manifest) -> str:
    revoked = read_revoked_keys(options.revoked) if options.revoked else ""
    trust = Trust(read_allowed_signers(options.allowed_signers), revoked, tuple(options.signer))
    seal = read_seal(options.bundle)
    if seal.digest != manifest.digest:
        raise BundleError(f"{options.bundle}: manifest.json: expected sha256 {manifest.digest}, found {seal.digest}")
    found = check_signature(seal.manifest, seal.signature, trust)
    if not found.passed:
        raise BundleError(f"{options.bundle}: expected {trust.expected}, found {found.found}: {found.advice}")
    return f"the signature {found.found.removeprefix('one ')}"


def _keygen(options: argparse.Namespace) -> None:
    print(publish.make_key(options.key, options.principal, not options.no_passphrase))


def _sign(options: argparse.Namespace) -> None:
    manifest = publish.sign_bundle(options.bundle, options.key)
    print(f"{manifest.name} {manifest.release}: signed with {options.key}")


def _publish(options: argparse.Namespace) -> None:
    done = publish.publish_bundle(options.bundle, options.registry, options.key, options.alias)
    said = "published as" if done.changed else "was there already, as"
    print(f"{done.manifest.name} {done.manifest.release}: {said} {done.address}")


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


def _speeds(bundle: Path, manifest: Manifest, forms: Iterable[str]) -> list[str]:
    """How long predictions take here in each of ``forms``: the bundle itself is the same wherever it is built."""
    from model_server.bundle.prove import microseconds
    from model_server.scoring.decode import decode
    from model_server.scoring.load import load

    golden = json.loads(read_verified(bundle, GOLDEN, manifest))
    body = json.dumps({"instances": golden["instances"]}).encode()
    lines = []
    for form in dict.fromkeys(forms):
        scorer = load(bundle, form)
        scorer.start()
        request = decode(body, scorer.contract)
        lines.append(f"speed    {form}: {_taken(microseconds(scorer.predictor, request.table, request.count))}")
    return lines


def _taken(microseconds: Mapping[str, float]) -> str:
    return ", ".join(f"{taken:g} µs for {rows} row{'' if rows == '1' else 's'}" for rows, taken in microseconds.items())


def _inspect(options: argparse.Namespace) -> None:
    manifest = read_manifest(options.bundle)
    contract = parse_contract(read_verified(options.bundle, CONTRACT, manifest), str(options.bundle))
    lock = read_verified(options.bundle, LOCK, manifest).decode().split()
    seal = read_seal(options.bundle)
    signature = check_intact(seal.manifest, seal.signature).found
    if options.json:
        document = {
            **asdict(manifest),
            "release": manifest.release,
            "signature": signature,
            "contract": encode_contract(contract),
            "lock": lock,
        }
        print(json.dumps(document, indent=2))
        return
    print(f"{manifest.name} {manifest.version}, release {manifest.release}")
    print(f"digest   {manifest.digest}")
    print(f"signed   {'no' if seal.signature is None else signature}")
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
    for line in _bill(options.bundle, manifest):
        print(line)
    for entry in manifest.files:
        print(f"file     {entry.path}: {entry.size} bytes, sha256 {entry.sha256}")


def _scorer(manifest: Manifest) -> list[str]:
    """The form that serves, and why."""
    lines = [f"scorer   {manifest.scorer}"]
    for tried in manifest.tried:
        said = tried.get("reason", "")
        if tried.get("equal") and "rows" in tried:
            said = f"equal on {tried['rows']} rows, largest difference {tried.get('largest_difference', 0):g}"
        taken = _taken(tried.get("microseconds", {}))
        lines.append(f"  {tried['form']}: {', '.join(filter(None, (said, taken)))}")
    return lines


def _bill(bundle: Path, manifest: Manifest) -> list[str]:
    """What is said of the software bill of materials, which a bundle that others wrote need not have."""
    if SBOM not in {entry.path for entry in manifest.files}:
        return []
    document = json.loads(read_verified(bundle, SBOM, manifest))
    packages = sum(component["type"] == "library" for component in document["components"])
    return [f"sbom     {SBOM}: CycloneDX {document['specVersion']}, {packages} packages with their licenses"]


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
