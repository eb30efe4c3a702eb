"""Runs the stages of `make test`, says how long each took, and ends non-zero naming those that failed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / ".cache"
VENV = Path(sys.prefix) / "bin"
ENVIRONMENT = {**os.environ, "PATH": f"{VENV}:{os.environ['PATH']}", "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
NAMESPACE = "ansible_collections.modelfleet.onprem.plugins"


class StageFailedError(Exception):
    """A command of a stage ended non-zero."""


def run(*command: str, folder: Path = ROOT, **environment: str) -> None:
    print(f"$ {' '.join(command)}", flush=True)
    if subprocess.run(command, cwd=folder, env={**ENVIRONMENT, **environment}, check=False).returncode:
        raise StageFailedError(" ".join(command[:4]))


def lint() -> None:
    """Style: Python, YAML and Ansible content."""
    run("ruff", "check")
    run("ruff", "format", "--check")
    run("yamllint", "--strict", ".")
    run("ansible-lint", "--strict", "--offline")


def types() -> None:
    """Types: the model server, what the collection's plugins share, and the test machinery."""
    # Named as packages, so that a module has one name whether Ansible or the type checker imports it.
    packages = [f"{NAMESPACE}.{name}" for name in ("module_utils", "plugin_utils")]
    words = [word for package in packages for word in ("--package", package)]
    run("mypy", "--explicit-package-bases", *words, MYPYPATH=".collections")
    run("mypy", folder=ROOT / "app")
    run("mypy", "--package", "testbed", "--package", "benchmarks", MYPYPATH=".collections")


def unit() -> None:
    """Unit tests, with a real HAProxy, gunicorn, browser and HTTP servers where the code talks to one."""
    path = f"{ENVIRONMENT['PATH']}:/usr/sbin:/sbin"
    for program, package in (("haproxy", "haproxy"), ("chromium", "chromium"), ("chromedriver", "chromium-driver")):
        if not shutil.which(program, path=path):
            install(package)
    run("python", "-m", "pytest", PATH=path)


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


def molecule() -> None:
    """The stories, on real systemd hosts."""
    run("python", "-m", "testbed", "engine")
    run("molecule", "test", "--all", MOLECULE_GLOB="molecule/*/molecule.yml")


def install(package: str) -> None:
    """A package of the distribution that the tests need."""
    become = [] if os.geteuid() == 0 else ["sudo"]
    run(*become, "apt-get", "update", "-qq")
    run(*become, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-y", "-qq", package)


def build() -> Path:
    """The collection's tarball, built anew."""
    run("ansible-galaxy", "collection", "build", "--force", "--output-path", str(CACHE / "dist"))
    return max((CACHE / "dist").glob("*.tar.gz"), key=lambda path: path.stat().st_mtime)


ALL: tuple[Callable[[], None], ...] = (lint, types, unit, sanity, importer, molecule)
STAGES = {stage.__name__: stage for stage in ALL}


def main(names: list[str]) -> int:
    results = []
    for name in names or STAGES:
        print(f"\n== {name}: {STAGES[name].__doc__}", flush=True)
        started = time.monotonic()
        try:
            STAGES[name]()
            outcome = "passed"
        except StageFailedError as error:
            outcome = f"FAILED: {error}"
        results.append((name, time.monotonic() - started, outcome))
    print()
    for name, seconds, outcome in results:
        print(f"{name:10} {seconds:7.1f} s  {outcome}")
    failed = sum(outcome != "passed" for _name, _seconds, outcome in results)
    print(f"{len(results) - failed} passed, {failed} failed", flush=True)
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
