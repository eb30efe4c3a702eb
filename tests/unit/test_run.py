"""The stages of `make test`: what they say, also of a command that failed, and what the unit tests need."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import run as stages

BREAKS = "import sys; [print('line', number) for number in range(100)]; sys.exit('it broke')"


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Callable[[], None]], None]:
    """Have a stage of this name do that."""

    def add(name: str, does: Callable[[], None]) -> None:
        does.__doc__ = "A stage of a test."
        monkeypatch.setitem(stages.STAGES, name, does)

    return add


def test_a_failed_command_says_its_last_lines_after_the_table(
    stage: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    stage("good", lambda: stages.run(sys.executable, "-c", "print('all is well')"))
    stage("bad", lambda: stages.run(sys.executable, "-c", BREAKS))
    assert stages.main(["bad", "good"]) == 1
    streamed, _, end = capsys.readouterr().out.partition("\nbad  ")
    assert [f"\nbad | line {number}\n" in streamed for number in (0, 99)] == [True, True]
    assert "\ngood | all is well\n" in streamed
    table, _, last = end.partition("\n\n")
    assert table.endswith("1 passed, 1 failed")
    heading, *lines = last.splitlines()
    assert heading.startswith(f"== bad: the last lines of {sys.executable} -c ")
    assert lines == [*(f"line {number}" for number in range(61, 100)), "it broke"]


def test_where_all_pass_nothing_comes_after_the_table(
    stage: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    stage("good", lambda: stages.run(sys.executable, "-c", "print('all is well')"))
    assert stages.main(["good"]) == 0
    assert capsys.readouterr().out.endswith("passed\n1 passed, 0 failed\n")


def test_two_stages_run_at_once_and_what_needs_all_processors_comes_last(
    stage: Callable[..., None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stages, "AT_ONCE", 2)
    both = threading.Barrier(2, timeout=10)
    ended: list[str] = []

    def does(name: str) -> Callable[[], None]:
        def work() -> None:
            both.wait()
            ended.append(name)

        return work

    stage("one", does("one"))
    stage("two", does("two"))
    monkeypatch.setattr(stages, "ALONE", {"last"})
    stage("last", lambda: ended.append("last"))
    assert stages.main(["last", "one", "two"]) == 0
    assert ended[2:] == ["last"]
    assert capsys.readouterr().out.endswith("3 passed, 0 failed\n")


def test_a_line_is_seen_as_soon_as_it_is_said(tmp_path: Path) -> None:
    """The command waits for a file that is made once its first line was seen."""
    seen = tmp_path / "seen"
    waits = f"""
import pathlib, time
print("first")
deadline = time.monotonic() + 10
while not pathlib.Path({str(seen)!r}).exists() and time.monotonic() < deadline:
    time.sleep(0.01)
print("in time" if time.monotonic() < deadline else "too late")
"""
    script = f"from tests import run as stages\nstages.run({sys.executable!r}, '-c', {waits!r})"
    command = [sys.executable, "-c", script]
    said = []
    with subprocess.Popen(command, cwd=stages.ROOT, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            said.append(line.strip())
            if line == "first\n":
                seen.touch()
    assert (said[-2:], process.returncode) == (["first", "in time"], 0)


@pytest.mark.parametrize(
    ("distribution", "browser", "left_out"), [("debian", True, []), ("ubuntu", False, [stages.IN_A_BROWSER])]
)
def test_the_test_in_a_browser_is_left_out_where_there_is_no_package_of_one(
    distribution: str, browser: bool, left_out: list[str]
) -> None:
    needed, without = stages.unit_needs({"ID": distribution})
    assert ("chromium" in needed, "chromedriver" in needed, without) == (browser, browser, left_out)


def test_what_is_left_out_is_said_and_told_to_pytest(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[tuple[str, ...]] = []
    monkeypatch.setattr(stages, "run", lambda *command, **_environment: ran.append(command))
    monkeypatch.setattr(stages.shutil, "which", lambda _program, path: path)
    monkeypatch.setattr(stages.platform, "freedesktop_os_release", lambda: {"ID": "ubuntu"})
    stages.unit()
    assert ran == [("python", "-m", "pytest", f"--deselect={stages.IN_A_BROWSER}")]
    assert capsys.readouterr().out.endswith(f"has no package of Chromium: {stages.IN_A_BROWSER}\n")


def test_the_test_in_a_browser_is_there() -> None:
    file, _, name = stages.IN_A_BROWSER.partition("::")
    assert f"\ndef {name}(" in (stages.ROOT / file).read_text()
