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


def test_what_ansible_says_of_a_failed_task_is_kept_however_long_ago_it_was(
    stage: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    said = ["fatal: [model1]: FAILED! => ", "    msg: it did not start", *(f"line {number}" for number in range(100))]
    stage("bad", lambda: stages.run(sys.executable, "-c", f"print({chr(10).join(said)!r}); exit(1)"))
    assert stages.main(["bad"]) == 1
    heading, *lines = capsys.readouterr().out.partition("\n\n==")[2].splitlines()
    assert heading.startswith(" bad: the last lines of ")
    assert lines == [*said[: stages.FATAL_LINES], *(f"line {number}" for number in range(60, 100))]


def test_what_might_end_too_late_is_left_out_and_named(
    stage: Callable[..., None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stages, "ALONE", {"short", "long"})
    monkeypatch.setattr(stages, "USUALLY", {"short": 9, "long": 11})
    ran: list[str] = []
    stage("long", lambda: ran.append("long"))
    stage("short", lambda: ran.append("short"))
    assert stages.main(["long", "short"], minutes=10) == 0
    *_, long, short, told, _empty, last = capsys.readouterr().out.splitlines()
    assert last == "1 of 2 stages left out, of which nothing is known: long"
    assert long == f"{'long':29} left out, for want of time"
    assert (short.split()[0], told) == ("short", "1 passed, 0 failed, 1 left out")
    assert stages.main(["long", "short"]) == 0
    assert ran == ["short", "long", "short"]


def test_without_a_fleet_no_story_is_told_and_what_was_made_of_it_is_removed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[str] = []

    def does(name: str) -> Callable[[], None]:
        def work() -> None:
            ran.append(name)
            if name == "molecule":
                raise stages.StageFailedError("molecule create", ["no space left"])

        work.__doc__ = "A stage of a test."
        return work

    monkeypatch.setattr(stages, "STAGES", {name: does(name) for name in stages.STAGES})
    assert stages.main(["molecule"]) == 1
    assert ran == ["molecule", "molecule/end"]
    out = capsys.readouterr().out
    assert f"1 passed, 1 failed, {len(stages.TOLD)} left out\n" in out
    assert out.endswith(f" stages left out, of which nothing is known: {', '.join(stages.TOLD)}\n")


def test_every_story_is_told_the_first_ones_first() -> None:
    folders = {path.parent.name for path in stages.ROOT.glob(stages.STORIES)}
    assert set(stages.FIRST) <= folders
    assert {f"molecule/{name}" for name in folders - {"virtual_machine"}} == set(stages.TOLD)
    assert stages.expand(["molecule"])[:2] == ["molecule", "molecule/default"]


def test_a_stage_that_there_is_not_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        stages.parse(["unit", "nonsense"])
    assert capsys.readouterr().err.endswith(", molecule/end, found nonsense\n")


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
    stages.app()
    settings = "--config-file=pyproject.toml"
    assert ran == [("python", "-m", "pytest", settings, "app/tests", f"--deselect={stages.IN_A_BROWSER}")]
    assert capsys.readouterr().out.endswith(f"has no package of Chromium: {stages.IN_A_BROWSER}\n")


def test_the_test_in_a_browser_is_there() -> None:
    file, _, name = stages.IN_A_BROWSER.partition("::")
    assert f"\ndef {name}(" in (stages.ROOT / file).read_text()
