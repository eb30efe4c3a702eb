"""The command line: ``python -m testbed VERB INVENTORY``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from testbed import engine, fleet, image, vm
from testbed.command import StepError, say
from testbed.inventory import RELEASES, read_fleet


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m testbed", description="Hosts to try the collection on.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    verbs.add_parser("engine", help="make sure that a Docker engine runs")
    building = verbs.add_parser("image", help="build the images that hosts are made from")
    building.add_argument("release", nargs="*", help=f"default: {' '.join(RELEASES)}")
    building.add_argument("--rebuild", action="store_true", help="even if its recipe has not changed")
    for verb, meaning in (
        ("up", "make the fleet of an inventory and wait until its hosts answer"),
        ("down", "remove the fleet with all that is on it"),
        ("status", "say how each host does"),
    ):
        verbs.add_parser(verb, help=meaning).add_argument("inventory", type=Path)
    killing = verbs.add_parser("kill", help="end a host at once; up starts it again")
    killing.add_argument("inventory", type=Path)
    killing.add_argument("host")
    killing.add_argument("--silent", action="store_true", help="its peers hear nothing of it, as when its power is cut")
    return parser


def main() -> int:
    arguments = _parser().parse_args()
    try:
        if arguments.verb == "engine":
            engine.ensure()
        elif arguments.verb == "image":
            engine.ensure()
            image.ensure(arguments.release, arguments.rebuild)
        elif arguments.verb == "kill":
            fleet.kill(read_fleet(arguments.inventory), arguments.host, silent=arguments.silent)
        else:
            described = read_fleet(arguments.inventory)
            kind = vm if described.kind == "vm" else fleet
            {"up": kind.up, "down": kind.down, "status": kind.status}[arguments.verb](described)
    except StepError as problem:
        say(f"testbed {arguments.verb}: {problem}")
        return 1
    except KeyboardInterrupt:
        say(f"testbed {arguments.verb}: stopped")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
