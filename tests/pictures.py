"""``python -m tests.pictures``: the pictures of the README, of a session made of the demo clips."""

from __future__ import annotations

import argparse
import copy
import io
import itertools
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.terminal_theme import DEFAULT_TERMINAL_THEME, MONOKAI

from edge import demo, report
from edge.__main__ import paced
from edge.audio import Lost, read_file
from edge.events import Estimate
from edge.model import Model
from edge.recognizer import Recognizer
from edge.record import Recorder
from edge.serve import Page
from edge.session import NamedSource, Session
from edge.terminal import Terminal

NAME = "USB microphone"


class Keep:
    """A sink that keeps everything, and what a terminal showed at the last few estimates."""

    def __init__(self):
        self.events, self.stills = [], []
        self.terminal = Terminal(Console(width=80, force_terminal=True, file=io.StringIO()))

    def send(self, event, source):
        self.events.append((event, source))
        self.terminal.send(event, source)
        if isinstance(event, Estimate):
            self.stills = [*self.stills[-3:], copy.deepcopy(self.terminal._view)]

    def close(self):
        pass


def session():
    """Hear all demo clips with pauses between them, and one gap, at the speed of sound."""
    recognizer, keep = Recognizer(Model(), status_s=0.1), Keep()
    rng = np.random.default_rng(0)
    samples = [np.pad(read_file(clip.path, 16_000), (8000, 16_000)) for clip in demo.clips()]
    samples = [(s + 1e-4 * rng.normal(size=len(s))).astype("f4") for s in samples]
    first, second = (
        paced(np.array_split(half, round(len(half) / 1600)), 16_000)
        for half in (np.concatenate(samples[:10]), np.concatenate(samples[10:]))
    )
    running = Session(recognizer, [keep])
    items = itertools.chain(first, [Lost(40_000, "the microphone was away")], second)
    with keep.terminal:
        running.start()
        running.hear(NamedSource(NAME, items))
    return keep


def terminal(view, browser, out):
    """Draw the terminal in both themes."""
    console = Console(record=True, width=80, force_terminal=True, file=io.StringIO())
    console.print(view.render(80))
    for name, theme in {"dark": MONOKAI, "light": DEFAULT_TERMINAL_THEME}.items():
        svg = console.export_svg(title="python -m edge", theme=theme, clear=False)
        tab = browser.new_page(viewport={"width": 994, "height": 440})
        tab.set_content(f"<body style='margin:0'>{svg}")
        tab.locator("svg").screenshot(path=out / f"terminal-{name}.png")


def page(events, browser, out):
    """Draw the page on a phone and on a desk, in both themes."""
    with Page("127.0.0.1", 0, None) as served:
        for event, source in events:
            served.send(event, source)
        for device, width, height in (("desktop", 1180, 640), ("phone", 390, 844)):
            for scheme in ("light", "dark"):
                tab = browser.new_page(
                    viewport={"width": width, "height": height}, color_scheme=scheme
                )
                tab.goto(served.url)
                tab.wait_for_selector("#history tr")
                tab.wait_for_timeout(500)
                tab.screenshot(path=out / f"page-{device}-{scheme}.png", full_page=True)


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.pictures", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("edge/results"))
    out = parser.parse_args().out
    from playwright.sync_api import sync_playwright

    heard = session()
    events = heard.events
    with sync_playwright() as p:
        browser = p.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        terminal(heard.stills[0], browser, out)
        page(events, browser, out)
    with tempfile.TemporaryDirectory() as folder:
        recorder = Recorder(Path(folder) / "session.jsonl")
        for event, source in events:
            recorder.send(event, source)
        recorder.close()
        report.picture(report.read(Path(folder) / "session.jsonl")[0][-1], out / "report.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
