"""What the checks on other systems share: the demo's events, and how far they may differ."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from edge.model import Model, TFLiteRuntime
from edge.smoothing import Smoother, Smoothing

ROOT = Path(__file__).parent.parent
DEMO = ["-m", "edge", "--demo", "--json"]


def requirements(python: str) -> dict[str, str]:
    """Return what edge/requirements.txt asks for on Linux with that Python, by name."""
    from packaging.requirements import Requirement

    environment = {"sys_platform": "linux", "python_version": python}
    wanted = {}
    for line in (ROOT / "edge" / "requirements.txt").read_text(encoding="utf-8").splitlines():
        if text := line.split("#")[0].strip():
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate(environment):
                wanted[requirement.name] = f"{requirement.name}{requirement.specifier}"
    return wanted


def demo(command: list[str], **environment: str) -> list[dict[str, Any]]:
    """Return the events of a demo run."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    done = subprocess.run(
        command, cwd=ROOT, env=clean | environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"error: {' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def differences(
    here: list[dict[str, Any]], there: list[dict[str, Any]], tolerance: float
) -> tuple[list[str], float]:
    """Return what differs by more than it may, and the largest difference of a probability.

    Times and counts must be equal, words too. The label of an estimate must be what each system's
    smoothing makes of its own probabilities, see `unsteady`; another label may differ where the two
    are as likely, but for the tolerance, and "uncertain" where the likeliest is as near to the
    threshold. What a run costs, and when it was, is not compared.
    """
    wrong, largest = unsteady(here) + unsteady(there), 0.0
    threshold = here[0]["settings"]["uncertain_below"] if here else 0.0
    if [e["event"] for e in here] != [e["event"] for e in there]:
        return [f"{len(here)} events against {len(there)}, or others"], 0.0
    for number, (one, other) in enumerate(zip(here, there, strict=True)):
        if one.keys() != other.keys():
            wrong.append(f"event {number}: fields {sorted(one)} against {sorted(other)}")
            continue
        name = one["event"]
        if name == "summary":
            kept = [k for k in one if k.startswith("n_") or k == "heard_s"]
            one, other = {k: one[k] for k in kept}, {k: other[k] for k in kept}
        for path, a, b in leaves(one, other):
            if path == "confidence" and one["label"] != other["label"]:
                same = True  # of two labels
            elif path.startswith(("probs.", "window_probs.", "confidence")):
                largest = max(largest, abs(a - b))
                same = abs(a - b) <= tolerance
            elif path == "label" and a != b:
                same = name == "estimate" or abs(one["probs"][a] - one["probs"][b]) <= tolerance
            elif path == "uncertain" and a != b:
                same = abs(max(one["probs"].values()) - threshold) <= tolerance
            elif path == "level_db":
                same = abs(a - b) <= 1e-3  # rounding of another processor
            else:
                same = a == b or (name, path) == ("start", "time")
            if not same:
                wrong.append(f"event {number}, {path}: {a} against {b}")
    return wrong, largest


def unsteady(events: list[dict[str, Any]]) -> list[str]:
    """Return where the label of an estimate is not what smoothing makes of the windows so far."""
    if not events:
        return []
    labels, settings = events[0]["labels"], events[0]["settings"]
    smoothing = Smoothing(settings["average_s"], settings["dwell_s"])
    smoother, wrong = Smoother(smoothing, events[0]["hop_s"]), []
    for number, event in enumerate(events):
        if event["event"] == "speech_start":
            smoother.reset()
        elif event["event"] == "estimate":
            label = labels[smoother.push(np.array([event["window_probs"][x] for x in labels]))[0]]
            if event["label"] != label:
                wrong.append(f"event {number}: {event['label']}, of which smoothing makes {label}")
    return wrong


def leaves(one: Any, other: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield path and both values of everything that is no object or array."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        for key in one:
            yield from leaves(one[key], other[key], f"{path}.{key}" if path else key)
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for number, (a, b) in enumerate(zip(one, other, strict=True)):
            yield from leaves(a, b, f"{path}.{number}")
    else:
        yield path, one, other


def one_step(model: Model) -> float:
    """Return how far a probability may move if every logit moves by one int8 step.

    With one logit a step up and the others a step down, its log-odds move by two steps, and a
    probability at most by a quarter of its log-odds.
    """
    if not isinstance(model.runtime, TFLiteRuntime):
        raise TypeError("the shipped model is TFLite")
    scale = float(model.runtime.output["quantization"][0])
    return 2 * scale / model.card.temperature / 4
