"""The demo: a fleet, three versions of a model deployed under load in three ways, and a rollback.

``python -m testbed.demo`` leaves the fleet up; ``--down`` removes it. What is there already is used as it is.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from testbed import engine, fleet, image, keys, models
from testbed.command import ROOT, STATE, StepError, say, step
from testbed.inventory import read_fleet
from testbed.load import Load
from testbed.playbook import playbook

INVENTORY = ROOT / "inventories" / "demo"
BUNDLES = STATE / "bundles"
URL = "http://127.0.0.1:18080/tumour"
FIRST = "deploy 1, basic"
# How each row of the table comes about: its name, the playbook and the playbook's variables.
STEPS: tuple[tuple[str, str, dict[str, str]], ...] = (
    (FIRST, "deploy", {"bundle": "tumour-1", "strategy": "basic"}),
    ("deploy 2, rolling", "deploy", {"bundle": "tumour-2", "strategy": "rolling"}),
    ("deploy 3, blue_green", "deploy", {"bundle": "tumour-3", "strategy": "blue_green"}),
    ("roll back", "rollback", {}),
)


def up() -> None:
    """Everything from an empty machine to the table."""
    fleet.up(read_fleet(INVENTORY))
    with step("Three versions of the model are trained and bundled"):
        models.build_all(BUNDLES)
    with step("Provisioned hosts and balancer") as remarks:
        remarks.append(_changes(playbook(INVENTORY, "provision").changed))
    answers = json.loads((BUNDLES / "answers.json").read_text())
    body = (BUNDLES / "request.json").read_bytes()
    rows = []
    with Load(f"{URL}/predict", body, rate=200, expected=answers, phase=FIRST) as load:
        for name, verb, variables in STEPS:
            if name != FIRST:
                load.mark(name)
            seconds = _run(verb, variables)
            load.mark(f"after {name}")
            say(f"{name} ({seconds:.1f} s)")
            rows.append((name, seconds))
    phases = {phase["name"]: phase for phase in load.result["phases"]}
    say("")
    for line in table([(name, seconds, phases.get(name, {})) for name, seconds in rows]):
        say(line)
    _say_next()
    check_lost(load.result)


def down() -> None:
    """Remove all that the demo made; what other fleets need as well stays until the last of them is gone."""
    described = read_fleet(INVENTORY)
    # An engine that is installed but does not run may still have the fleet; without one there is nothing.
    if shutil.which("docker"):
        engine.ensure()
    fleet.down(described)
    image.remove_unused()
    shutil.rmtree(BUNDLES, ignore_errors=True)
    if keys.forget(described):
        image.remove_logs()
    # The log of an engine that was started by hand is still being written.
    with contextlib.suppress(OSError):
        STATE.rmdir()


def check_lost(result: Mapping[str, Any]) -> None:
    """Raise StepError if requests failed, but for those that the balancer refused while nothing served yet.

    ``basic`` is for a service that nobody needs yet: until its release serves, the answers are 404 and 503.
    """
    lost = sum(phase["failed"] for phase in result["phases"] if phase["name"] != FIRST)
    wrong = [
        failure
        for failure in result["failures"]
        if failure["phase"] != FIRST or not failure["reason"].startswith(("status 404", "status 503"))
    ]
    if lost or wrong:
        raise StepError(f"{max(lost, len(wrong))} requests failed: {json.dumps(wrong[:3])}")


def _run(verb: str, variables: Mapping[str, str]) -> float:
    given = {"service": "tumour", **variables}
    if "bundle" in given:
        given["bundle"] = str(BUNDLES / given["bundle"])
    return playbook(INVENTORY, verb, **given).seconds


def _changes(count: int) -> str:
    return f"{count} changes" if count else "which they were already"


def table(rows: Sequence[tuple[str, float, Mapping[str, Any]]]) -> list[str]:
    """A line a step: its seconds, and of the requests sent meanwhile how many, how many failed, how long, by which."""
    heading = ("step", "seconds", "requests", "failed", "p50 ms", "p99 ms", "versions that answered")
    cells: list[tuple[str, ...]] = [heading]
    for name, seconds, phase in rows:
        versions = ", ".join(f"{version} ({count})" for version, count in phase.get("versions", {}).items())
        figures = [str(phase[key]) if key in phase else "-" for key in ("sent", "failed")]
        times = [f"{phase[key]:.1f}" if phase.get(key) is not None else "-" for key in ("p50_ms", "p99_ms")]
        cells.append((name, f"{seconds:.1f}", *figures, *times, versions or "-"))
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]


def _say_next() -> None:
    body = BUNDLES / "request.json"
    say(
        f"""
The fleet is up, and the service answers at {URL}/predict:

  curl -i -H 'Content-Type: application/json' -d @{body.relative_to(ROOT)} {URL}/predict

Next, in this folder:

  . .venv/bin/activate
  ansible-playbook -i inventories/demo playbooks/status.yml
  ansible-playbook -i inventories/demo playbooks/deploy.yml -e service=tumour -e bundle=.testbed/bundles/tumour-3
  ansible-playbook -i inventories/demo playbooks/rollback.yml -e service=tumour
  make demo-down
"""
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m testbed.demo", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--down", action="store_true", help="remove the fleet that the demo made")
    arguments = parser.parse_args()
    try:
        if arguments.down:
            down()
        else:
            up()
    except StepError as problem:
        say(f"demo: {problem}")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
