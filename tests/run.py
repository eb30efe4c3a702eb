"""Runs the stages of `make test`, says how long each took, and ends non-zero naming those that failed.

`run.py unit molecule/canary` runs these alone. With `--minutes 84` no stage begins that might not end within them; the
table has those that were left out, and the last line of all names them.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / ".cache"
VENV = Path(sys.prefix) / "bin"
ENVIRONMENT = {
    **os.environ,
    "PATH": f"{VENV}:{os.environ['PATH']}",
    "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
    # What a Python says is read here as it says it, not when its buffer is full.
    "PYTHONUNBUFFERED": "1",
}
NAMESPACE = "ansible_collections.modelfleet.onprem.plugins"
IN_A_BROWSER = "app/tests/test_clients.py::test_a_person_uses_the_page_in_a_browser_behind_a_balancer"
STORIES = "molecule/*/molecule.yml"
SEED = 4
"""Of chaos, whose nightly run takes another one each time: what that finds no change has brought."""
LINES_KEPT = 40
# What Ansible says of a task that failed, which may be long before the end of what it says.
FATAL_LINES = 6
AT_ONCE = min(2, os.cpu_count() or 1)
stage_name = ContextVar("stage_name", default="")
building = threading.Lock()
installing = threading.Lock()


class StageFailedError(Exception):
    """A command of a stage ended non-zero.

    ``end`` has the last lines of what it said, after those that Ansible said of tasks that failed.
    """

    def __init__(self, command: str, end: list[str]) -> None:
        super().__init__(command)
        self.end = end


def say(line: str) -> None:
    """A line of a stage, with its name, for two of them may run at once."""
    name = stage_name.get()
    sys.stdout.write(f"{name} | {line}\n" if name else f"{line}\n")
    sys.stdout.flush()


def run(*command: str, folder: Path = ROOT, **environment: str) -> None:
    say(f"$ {' '.join(command)}")
    fatal: deque[str] = deque(maxlen=LINES_KEPT)
    end: deque[str] = deque(maxlen=LINES_KEPT)
    more = 0
    variables = {**ENVIRONMENT, **environment}
    with subprocess.Popen(
        command,
        cwd=folder,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        for line in process.stdout or ():
            said = line.rstrip("\n")
            say(said)
            end.append(said)
            more = FATAL_LINES if said.startswith("fatal:") else more - 1
            if more > 0:
                fatal.append(said)
    if process.returncode:
        raise StageFailedError(" ".join(command[:4]), [*(line for line in fatal if line not in end), *end])


def lint() -> None:
    """Style: Python, YAML and Ansible content."""
    run("ruff", "check")
    run("ruff", "format", "--check")
    run("yamllint", "--strict", ".")
    run("ansible-lint", "--strict", "--offline")


def types() -> None:
    """Types: the model server and its tests, what the collection's plugins share, and the test machinery."""
    # Named as packages, so that a module has one name whether Ansible or the type checker imports it.
    packages = [f"{NAMESPACE}.{name}" for name in ("module_utils", "plugin_utils")]
    words = [word for package in packages for word in ("--package", package)]
    run("mypy", "--explicit-package-bases", *words, MYPYPATH=".collections")
    run("mypy", folder=ROOT / "app")
    run("mypy", "--package", "testbed", "--package", "benchmarks", MYPYPATH=".collections")


def unit() -> None:
    """Unit tests of the collection, with a real HAProxy and HTTP servers where the code talks to one."""
    _pytest("tests/unit")


def app() -> None:
    """Unit tests of the model server, with a real gunicorn, HAProxy and browser."""
    _pytest("app/tests")


def _pytest(folder: str) -> None:
    path = f"{ENVIRONMENT['PATH']}:/usr/sbin:/sbin"
    needed, left_out = unit_needs(platform.freedesktop_os_release())
    left_out = [test for test in left_out if test.startswith(folder)]
    with installing:
        for program, package in needed.items():
            if not shutil.which(program, path=path):
                install(package)
    for test in left_out:
        say(f"left out, for this distribution has no package of Chromium: {test}")
    # The model server has settings of its own, for who works on it alone.
    run(
        "python",
        "-m",
        "pytest",
        "--config-file=pyproject.toml",
        folder,
        *(f"--deselect={test}" for test in left_out),
        PATH=path,
    )


def unit_needs(distribution: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """The programs of the unit tests with their packages, and the tests that are left out for want of one.

    Ubuntu has Chromium as a snap alone, which neither a container nor a test's own folders suit.
    """
    if distribution["ID"] == "ubuntu":
        return {"haproxy": "haproxy"}, [IN_A_BROWSER]
    return {"haproxy": "haproxy", "chromium": "chromium", "chromedriver": "chromium-driver"}, []


def sanity() -> None:
    """Ansible's own tests of the collection, as it is built, with no ignore entries."""
    # Outside the checkout, for ansible-test asks git which files there are, and git ignores what is made here.
    with tempfile.TemporaryDirectory() as folder, tarfile.open(build()) as archive:
        checked = Path(folder) / "ansible_collections" / "modelfleet" / "onprem"
        archive.extractall(checked, filter="data")
        _provide_pip(Path(folder))
        # The system's programs alone: ansible-test would call a version manager's stand-ins for Pythons not there.
        path = f"{VENV}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        run("ansible-test", "sanity", "--local", "--color", "no", folder=checked, HOME=folder, PATH=path)


def _provide_pip(home: Path) -> None:
    # ansible-test fetches pip from the network for each of its environments; Python has one, so it is given that.
    pip = home / ".ansible" / "test" / "cache" / "get_pip_24_2.py"
    pip.parent.mkdir(parents=True)
    pip.write_text(
        "import subprocess, sys\n"
        "subprocess.check_call([sys.executable, '-m', 'ensurepip'])\n"
        "subprocess.check_call([sys.executable, '-m', 'pip', 'install', '--quiet', 'pip==24.2'])\n"
    )


def importer() -> None:
    """What Galaxy checks when the tarball is uploaded."""
    run("python", "-m", "galaxy_importer.main", str(build()), folder=CACHE)


def machine() -> None:
    """The story on a virtual machine, with a kernel of its own."""
    inventory = "molecule/virtual_machine/inventory"
    run("python", "-m", "testbed", "down", inventory)
    with installing:
        run("python", "-m", "testbed", "up", inventory)
    run("molecule", "test", "--scenario-name=virtual_machine", MOLECULE_GLOB=STORIES)


def molecule() -> None:
    """The fleet of systemd hosts that all stories share."""
    run("python", "-m", "testbed", "engine")
    # Molecule remembers outside the checkout that it made a fleet, and would not make anew what a restart of the
    # machine, or another checkout of the same name, took away.
    fleet_down()
    run("molecule", "create", "--scenario-name=default", MOLECULE_GLOB=STORIES)


def fleet_down() -> None:
    """The end of that fleet."""
    run("molecule", "destroy", "--all", MOLECULE_GLOB=STORIES)


def story(name: str) -> Callable[[], None]:
    """A stage that tells one story of ``molecule/``."""

    def tell() -> None:
        run("molecule", "test", "--destroy=never", f"--scenario-name={name}", MOLECULE_GLOB=STORIES)

    tell.__doc__ = (ROOT / "molecule" / name / "molecule.yml").read_text().splitlines()[1].removeprefix("# ")
    return tell


def stories() -> list[str]:
    """The stories of the fleet, in the order in which they are told; where time is short, the last are left out."""
    found = sorted(path.parent.name for path in ROOT.glob(STORIES))
    return [*FIRST, *(name for name in found if name not in FIRST and name != "virtual_machine")]


def chaos() -> None:
    """What breaks in the middle of rollouts: ten minutes of it, the same trials in every run."""
    run("python", "-m", "benchmarks.chaos", f"--seed={SEED}", "--minutes=10", "--no-store", PYTHONPATH=".collections")


def install(package: str) -> None:
    """A package of the distribution that the tests need."""
    become = [] if os.geteuid() == 0 else ["sudo"]
    run(*become, "apt-get", "update", "-qq")
    run(*become, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-y", "-qq", package)


def build() -> Path:
    """The collection's tarball, built anew."""
    with building:
        folder = CACHE / "dist" / stage_name.get()
        run("ansible-galaxy", "collection", "build", "--force", "--output-path", str(folder))
    return max(folder.glob("*.tar.gz"), key=lambda path: path.stat().st_mtime)


FIRST = (
    *("default", "rolling", "blue_green", "blue_green_groups", "rollback", "bad_release", "bad_input"),
    *("installed_collection", "canary", "interrupted", "signatures", "two_balancers"),
)
TOLD = {f"molecule/{name}": story(name) for name in stories()}
# The longest first, beside which the others run one by one.
ALL: tuple[Callable[[], None], ...] = (unit, app, lint, types, sanity, importer, molecule, machine, chaos)
STAGES = {stage.__name__: stage for stage in ALL} | TOLD | {"molecule/end": fleet_down}
ALONE = {"molecule", *TOLD, "molecule/end", "chaos", "machine"}
"""What uses all processors, and whose clients would take a busy machine for a slow service."""
USUALLY = {"molecule": 5, **dict.fromkeys(TOLD, 12), "chaos": 16, "machine": 25}
"""What these may take on a slow machine, in minutes; ``machine`` without KVM."""


@dataclass(frozen=True)
class Result:
    """How a stage went: what it took, in seconds, how it failed, if it did, or why it was left out."""

    name: str
    seconds: float = 0
    error: StageFailedError | None = None
    left_out: str = ""

    def __str__(self) -> str:
        if self.left_out:
            return f"{self.name:29} left out, {self.left_out}"
        return f"{self.name:29} {self.seconds:7.1f} s  {f'FAILED: {self.error}' if self.error else 'passed'}"


def timed(name: str) -> Result:
    """Run a stage."""
    stage_name.set(name)
    say(f"== {STAGES[name].__doc__}")
    started = time.monotonic()
    try:
        STAGES[name]()
    except StageFailedError as error:
        return Result(name, time.monotonic() - started, error)
    return Result(name, time.monotonic() - started)


def expand(names: Sequence[str]) -> list[str]:
    """The stages with these names, all of them where there are none; ``molecule`` is its stories, too."""
    asked = list(names) or [stage.__name__ for stage in ALL]
    told = ["molecule", *TOLD, "molecule/end"]
    return [stage for name in asked for stage in (told if name == "molecule" else [name])]


def one_by_one(names: Sequence[str], ends: float) -> list[Result]:
    """Run stages that need all processors, while there is time, and stories while there is a fleet."""
    results: list[Result] = []
    with ThreadPoolExecutor(1) as one:
        for name in names:
            if name in TOLD and any(result.name == "molecule" and result.error for result in results):
                results.append(Result(name, left_out="for there is no fleet"))
            elif time.monotonic() + 60 * USUALLY.get(name, 0) > ends:
                results.append(Result(name, left_out="for want of time"))
            else:
                results.append(one.submit(timed, name).result())
    return results


def main(names: Sequence[str], minutes: float = math.inf) -> int:
    ends = time.monotonic() + 60 * minutes
    wanted = expand(names)
    with ThreadPoolExecutor(AT_ONCE) as several:
        results = list(several.map(timed, [name for name in wanted if name not in ALONE]))
    results += one_by_one([name for name in wanted if name in ALONE], ends)
    failures = {result.name: result.error for result in results if result.error}
    left_out = [result.name for result in results if result.left_out]
    print("", *results, sep="\n")
    told = f", {len(left_out)} left out" if left_out else ""
    print(f"{len(results) - len(failures) - len(left_out)} passed, {len(failures)} failed{told}", flush=True)
    # Where only the end of the output is shown, this is what there is to see.
    for name, failure in failures.items():
        print(f"\n== {name}: the last lines of {failure}", *failure.end, sep="\n", flush=True)
    if left_out:
        print(
            f"\n{len(left_out)} of {len(results)} stages left out, of which nothing is known: {', '.join(left_out)}",
            flush=True,
        )
    return min(len(failures), 1)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="STAGE", help=f"{', '.join(STAGES)}; all, where none is named")
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin nothing that might end later than this")
    parsed = parser.parse_args(arguments)
    if unknown := [name for name in parsed.names if name not in STAGES]:
        parser.error(f"expected stages of {', '.join(STAGES)}, found {', '.join(unknown)}")
    return parsed


if __name__ == "__main__":
    asked = parse(sys.argv[1:])
    sys.exit(main(asked.names, asked.minutes))
