"""What reaches a person's screen."""

import io
import sys

import pytest

from cluster import console


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "_screen", console._Screen())


def test_a_log_shows_first_lines_sparsely_and_the_last_always(
    screen: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 100.0
    monkeypatch.setattr(console.time, "monotonic", lambda: now)
    for done in range(1, 26):
        now += 1
        console.report("student", done, 30, "epochs", f"loss {done}")
    console.report("student", 26, 30, "epochs", "loss 26", finished=True)
    assert capsys.readouterr().out.splitlines() == [
        "student: 11 of 30 epochs, loss 11, 19 s left",
        "student: 21 of 30 epochs, loss 21, 9 s left",
        "student: 26 of 30 epochs, loss 26",
    ]


def test_a_long_job_does_not_fill_its_log(
    screen: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now, hours = 0.0, 10
    monkeypatch.setattr(console.time, "monotonic", lambda: now)
    for done in range(hours * 3600):
        now += 1
        console.report("labels", done, 1e9, "rows")
    assert 20 < len(capsys.readouterr().out.splitlines()) < 150


def test_a_terminal_shows_a_bar_and_leaves_one_line(screen: None, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    console.report("student", 5, 10, "epochs", "loss 2")
    console.say("a line")
    console.report("student", 10, 10, "epochs", "loss 1")
    shown = terminal.getvalue()
    assert "50%" in shown and "loss 2" in shown
    assert shown.replace("\r", "\n").rstrip().splitlines()[-1] == "student: 10 of 10 epochs, loss 1"


def test_a_workers_reports_are_shown_and_nothing_else_of_it(
    screen: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as worker:
        worker.setattr(console, "_in_worker", True)
        console.say("trained")
        print("WARNING: of an engine")
    lines = capsys.readouterr().out.splitlines()
    printed = {"lines": lines, "is_err": False, "pid": 1, "ip": "x", "job": None, "actor_name": None}
    monkeypatch.delenv(console.VERBOSE, raising=False)
    console._from_worker(printed)
    assert capsys.readouterr().out == "trained\n"
    monkeypatch.setenv(console.VERBOSE, "1")
    console._from_worker(printed)
    assert "of an engine" in "".join(capsys.readouterr())
