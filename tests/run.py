"""Runs the stages of `make test`, says how long each took, and ends non-zero naming those that failed."""

from __future__ import annotations

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
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
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
LINES_KEPT = 40
AT_ONCE = min(2, os.cpu_count() or 1)
stage_name = ContextVar("stage_name", default="")
building = threading.Lock()
installing = threading.Lock()


class StageFailedError(Exception):
    """A command of a stage ended non-zero; ``end`` has the last lines of what it said."""

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
    end: deque[str] = deque(maxlen=LINES_KEPT)
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
            say(line.rstrip("\n"))
            end.append(line.rstrip("\n"))
    if process.returncode:
        raise StageFailedError(" ".join(command[:4]), list(end))


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
    """Unit tests, with a real HAProxy, gunicorn, browser and HTTP servers where the code talks to one."""
    path = f"{ENVIRONMENT['PATH']}:/usr/sbin:/sbin"
    needed, left_out = unit_needs(platform.freedesktop_os_release())
    with installing:
        for program, package in needed.items():
            if not shutil.which(program, path=path):
                install(package)
    for test in left_out:
        say(f"left out, for this distribution has no package of Chromium: {test}")
    run("python", "-m", "pytest", *(f"--deselect={test}" for test in left_out), PATH=path)


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
    """The stories on a fleet of systemd hosts."""
    run("python", "-m", "testbed", "engine")
    # Molecule remembers outside the checkout that it made a fleet, and would not make anew what a restart of the
    # machine, or another checkout of the same name, took away.
    run("molecule", "destroy", "--all", MOLECULE_GLOB=STORIES)
    run("molecule", "test", "--all", "--exclude=virtual_machine", MOLECULE_GLOB=STORIES)


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


# The longest first, beside which the others run one by one.
ALL: tuple[Callable[[], None], ...] = (machine, unit, lint, types, sanity, importer, molecule)
STAGES = {stage.__name__: stage for stage in ALL}
ALONE = {"molecule"}
"""What uses all processors, and whose clients would take a busy machine for a slow service."""


def timed(name: str) -> tuple[str, float, StageFailedError | None]:
    """Run a stage; its name, what it took in seconds, and how it failed, if it did."""
    stage_name.set(name)
    say(f"== {STAGES[name].__doc__}")
    started = time.monotonic()
    try:
        STAGES[name]()
    except StageFailedError as error:
        return name, time.monotonic() - started, error
    return name, time.monotonic() - started, None


def main(names: list[str]) -> int:
    names = names or list(STAGES)
    with ThreadPoolExecutor(AT_ONCE) as several:
        results = list(several.map(timed, [name for name in names if name not in ALONE]))
    with ThreadPoolExecutor(1) as one:
        results += one.map(timed, [name for name in names if name in ALONE])
    ends = {name: error for name, _seconds, error in results if error}
    print()
    for name, seconds, error in results:
        print(f"{name:10} {seconds:7.1f} s  {f'FAILED: {error}' if error else 'passed'}")
    print(f"{len(results) - len(ends)} passed, {len(ends)} failed", flush=True)
    # Where only the end of the output is shown, this is what there is to see.
    for name, failure in ends.items():
        print(f"\n== {name}: the last lines of {failure}", *failure.end, sep="\n", flush=True)
    return min(len(ends), 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
