from __future__ import annotations

import pytest

from autolabel.console import Screen, _Clock
from autolabel.execute import Progress


def state(done: int, total: int = 40, failed: int = 0) -> Progress:
    return Progress(done=done, total=total, already=0, failed=failed, annotations=3 * done)


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock to set by hand."""
    time = [100.0]
    monkeypatch.setattr("autolabel.console.time.monotonic", lambda: time[0])
    return time


def test_loading_the_models_does_not_count_into_the_rate(now: list[float]) -> None:
    clock = _Clock()
    assert clock.note(state(0)) == "loading models"
    now[0] += 20
    assert clock.note(state(10)) == "0.5 images/s  1:00 left  30 annotations"
    now[0] += 5
    assert clock.note(state(20)) == "2.0 images/s  0:10 left  60 annotations"
    now[0] += 10
    assert clock.note(state(40, failed=2)) == "2.0 images/s  120 annotations  2 failed"


def test_slow_models_are_told_in_seconds_an_image(now: list[float]) -> None:
    clock = _Clock()
    now[0] += 7200
    assert clock.note(state(20, total=60)) == "360 s an image  4:00:00 left  60 annotations"


def test_quiet_and_json_show_no_progress(capsys: pytest.CaptureFixture[str]) -> None:
    for screen in (Screen(quiet=True), Screen(as_json=True)):
        with screen.progress() as show:
            show(state(40))
    assert capsys.readouterr() == ("", "")


def test_without_a_terminal_progress_is_a_line_at_the_end(capsys: pytest.CaptureFixture[str], now: list[float]) -> None:
    with Screen().progress() as show:
        show(state(0))
        now[0] += 1
        show(state(20))
        show(state(40))
    assert capsys.readouterr().err.splitlines() == ["  40/40 images  40.0 images/s  120 annotations"]
