"""Running other programs, and saying on standard output what is done and how long it took."""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STATE = ROOT / ".testbed"
"""Keys, logs and disks of the fleets. Not in git."""

_print_lock = threading.Lock()


class StepError(Exception):
    """A step failed: why, in one line for the person at the terminal."""


def say(text: str) -> None:
    """One whole line, whichever thread says it."""
    with _print_lock:
        print(text, flush=True)


@contextlib.contextmanager
def step(text: str) -> Iterator[list[str]]:
    """Say ``text`` and the seconds it took, once it is done. What is appended to the list yielded is said as well."""
    remarks: list[str] = []
    start = time.monotonic()
    yield remarks
    said = "".join(f", {remark}" for remark in remarks)
    say(f"{text}{said} ({time.monotonic() - start:.1f} s)")


def last_line(text: str) -> str:
    """The last line with something on it: where most programs say why they failed."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no message"


def run(argv: Sequence[str], *, stdin: bytes | None = None, timeout: float = 120) -> str:
    """The standard output of a program. Raises StepError when it fails or takes longer than ``timeout`` seconds."""
    try:
        # Without input of its own a program gets an empty one: docker and ssh would read the terminal's.
        done = subprocess.run(list(argv), capture_output=True, timeout=timeout, check=False, input=stdin or b"")
    except FileNotFoundError as error:
        raise StepError(f"{argv[0]}: this program is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise StepError(f"{shlex.join(argv[:4])}: not done after {timeout:.0f} s") from error
    if done.returncode:
        message = last_line(done.stderr.decode(errors="replace") or done.stdout.decode(errors="replace"))
        raise StepError(f"{shlex.join(argv[:4])}: ended with {done.returncode}: {message}")
    return done.stdout.decode(errors="replace")


def succeeds(argv: Sequence[str], *, timeout: float = 30) -> bool:
    """Whether a program ends with 0."""
    try:
        run(argv, timeout=timeout)
    except StepError:
        return False
    return True


def as_root(argv: Sequence[str]) -> list[str]:
    """The command, by way of sudo when we are not root."""
    return list(argv) if os.geteuid() == 0 else ["sudo", "--non-interactive", *argv]


def install(*packages: str) -> None:
    """Install Debian packages that are not there yet."""
    query = ["dpkg-query", "--show", "--showformat=${db:Status-Status}"]
    missing = [name for name in packages if not _answers([*query, name], "installed")]
    if not missing:
        return
    apt = as_root(["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "--quiet"])
    with step(f"Installed {', '.join(missing)} from the distribution's packages"):
        run([*apt, "update"], timeout=300)
        run([*apt, "install", "--yes", "--no-install-recommends", *missing], timeout=900)


def _answers(argv: Sequence[str], expected: str) -> bool:
    try:
        return run(argv).strip() == expected
    except StepError:
        return False
