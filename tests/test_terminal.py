import io

import pytest
from rich.console import Console

from edge.events import Estimate, Gap, Start, Status
from edge.palette import letters
from edge.terminal import Terminal, View

LABELS = ["anger", "sadness", "surprise"]
START = Start("2026-01-01T00:00:00+00:00", "test", LABELS, 100, 2.0, 0.25, {})


def estimate(at_s, label, uncertain=False):
    probs = dict.fromkeys(LABELS, 0.1) | {label: 0.8}
    n = round(at_s * 100)
    return Estimate(100, n, n, n, label, 0.8, uncertain, probs, probs)


def status(at_s, speech=True, level_db=-20.0, state="listening", message=None, n_lost=0):
    n = round(at_s * 100)
    return Status(100, n, n, n, state, speech, level_db, message, n, n_lost)


def seen(view, width=80, unicode=True):
    console = Console(file=io.StringIO(), width=width, color_system=None, force_terminal=True)
    console.print(view.render(width, unicode))
    return console.file.getvalue()


@pytest.fixture
def view():
    view = View()
    view.update(START, "")
    return view


@pytest.mark.parametrize("width", [40, 80, 200])
@pytest.mark.parametrize("unicode", [True, False])
def test_it_fits_and_says_everything_without_colour(view, width, unicode):
    for second in range(1, 70):
        view.update(estimate(second, LABELS[second % 3]), "USB microphone")
        view.update(status(second), "USB microphone")
    for _ in range(20):
        view.step()
    view.count()
    text = seen(view, width, unicode)
    lines = text.splitlines()
    assert all(len(line) <= width for line in lines)
    assert unicode or text.isascii()
    for word in ("USB microphone", "0:01:09", "speech", "-20 dB", "anger", "80%", "10%", "margin"):
        assert word in text
    minute = next(line for line in lines if "now" in line)
    assert "ASU" in minute  # surprise cannot be S as well
    bars = [
        line.count("█" if unicode else "#") for line in lines if "%" in line and "CPU" not in line
    ]
    assert bars[0] == max(bars) > 5 * bars[1] > 0


def test_bars_move_smoothly(view):
    view.update(estimate(1, "anger"), "a")
    lengths = []
    for _ in range(6):
        view.step()
        lengths.append(view.bars["anger"])
    assert lengths == sorted(lengths)
    assert 0 < lengths[0] < 0.5 < 0.75 < lengths[-1] <= 0.8


def test_quiet_gaps_and_uncertainty_show(view):
    view.update(estimate(2.0, "anger", uncertain=True), "a")
    assert "uncertain" in seen(view)
    view.update(Gap(100, 500, 300, 500, "test"), "a")
    view.update(status(6, speech=False, n_lost=200), "a")
    view.count()
    text = seen(view)
    assert "xx" in text
    assert "quiet" in text
    assert "lost 2.0 s" in text
    assert "uncertain" not in text


def test_a_missing_microphone_stays_on_the_screen_until_it_is_back(view):
    view.update(status(1, state="waiting", message="plug one in"), "a")
    view.update(status(1, state="waiting"), "a")
    assert "waiting" in seen(view)
    assert "plug one in" in seen(view)
    view.update(status(2, message="listening to USB microphone"), "a")
    assert "plug one in" not in seen(view)
    assert "listening" not in seen(view)  # would be gone before anybody has read it


def test_a_long_silence_leaves_a_minute_and_no_more(view):
    view.update(status(1), "a")
    view.update(status(10**7), "a")
    assert len(view.timeline) == 60
    assert view.now_s == 10**7


def test_letters_differ():
    assert letters(["fear", "frustration", "ff"]) == {"fear": "F", "frustration": "R", "ff": "?"}


def test_utterances_scroll_away_above_the_view():
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)
    with Terminal(console) as terminal:
        terminal.send(START, "")
        terminal.send(Gap(100, 500, 300, 500, "the microphone was away"), "a")
        terminal.send(status(6), "a")
    assert "3.00 s: 2.00 s lost (the microphone was away)" in console.file.getvalue()


def test_what_is_said_once_can_be_read_however_soon_other_things_follow(monkeypatch):
    monkeypatch.setattr("edge.terminal.REFRESH_S", float("inf"))  # no refresh comes in time
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)
    with Terminal(console) as terminal:
        terminal.send(START, "")
        terminal.send(status(1, speech=False, message="is it muted?"), "a")
        terminal.send(status(2, speech=False), "a")
        terminal.send(status(3, state="waiting", message="plug one in"), "a")
    assert console.file.getvalue().count("is it muted?") == 1
    assert console.file.getvalue().count("plug one in") == 1
