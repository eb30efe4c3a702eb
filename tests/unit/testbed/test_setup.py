"""Making the checkout's environment, on a machine whose programs only write down what they were told."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SETUP = Path(__file__).parents[3] / "testbed/setup.sh"
# Its ensurepip is in a package of its own, as Debian and Ubuntu have it; it makes no environment, which ends the run.
SUITS = 'case "$*" in *ensurepip*|*venv*) exit 1; esac'
TOO_OLD = "exit 1"
APT_GET = 'echo "$@" >> "$(dirname "$0")/told"'


@pytest.mark.parametrize(
    ("pythons", "package"),
    [
        ({"python3": SUITS}, "python3-venv"),
        ({"python3": TOO_OLD, "python3.11": SUITS}, "python3.11-venv"),
    ],
    ids=["the distribution's own", "one beside it"],
)
def test_the_python_that_is_chosen_gets_its_own_package_of_venv(
    tmp_path: Path, pythons: dict[str, str], package: str
) -> None:
    (tmp_path / "testbed").mkdir()
    setup = shutil.copy(SETUP, tmp_path / "testbed")
    for name, does in {**pythons, "apt-get": APT_GET, "sudo": 'exec "$@"'}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / name).chmod(0o755)
    for name in ("dirname", "env", "id", "rm", "sh"):
        (tmp_path / name).symlink_to(str(shutil.which(name)))
    done = subprocess.run([setup], env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False)
    assert done.returncode
    assert (tmp_path / "told").read_text().splitlines() == ["update -qq", f"install -y -qq {package}"]
