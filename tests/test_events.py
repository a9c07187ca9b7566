"""What the comparison of two systems' events lets pass, and what not."""

import copy

import pytest

from edge.model import Model
from tests.device import differences, one_step, requirements

EVENTS = [
    {"event": "start", "labels": ["a", "b"], "window_s": 1.99},
    {"event": "estimate", "end_s": 1.99, "label": "a", "probs": {"a": 0.505, "b": 0.495}},
    {"event": "clip", "end_s": 3.0, "label": "b", "probs": {"a": 0.1, "b": 0.9}},
    {"event": "summary", "n_clips": 1, "heard_s": 3.0, "cpu_s": 0.1},
]


def changed(number, **fields):
    events = copy.deepcopy(EVENTS)
    events[number].update(fields)
    return events


@pytest.mark.parametrize(
    "there",
    [
        EVENTS,
        changed(1, probs={"a": 0.52, "b": 0.48}),
        changed(1, label="b"),  # nearly a tie
        changed(3, cpu_s=9.0),
    ],
)
def test_rounding_and_what_a_run_costs_may_differ(there):
    assert differences(EVENTS, there, 0.02)[0] == []


def estimates(*labels, speech_start=None):
    """Return events whose first estimate is nearly a tie, and no other."""
    events = [
        {"event": "estimate", "label": label, "probs": {"a": p, "b": 1 - p}}
        for label, p in zip(labels, (0.505, 0.9, 0.9, 0.9), strict=True)
    ]
    if speech_start is not None:
        events.insert(speech_start, {"event": "speech_start"})
    return events


def test_a_label_that_differed_in_a_tie_may_be_held():
    here = estimates("a", "a", "a", "a")
    assert differences(here, estimates("b", "b", "a", "a"), 0.02)[0] == []
    wrong, _ = differences(here, estimates("b", "a", "b", "a"), 0.02)
    assert wrong == ["event 2, label: a against b"]
    wrong, _ = differences(here, estimates("a", "b", "b", "a"), 0.02)
    assert wrong[0] == "event 1, label: a against b"
    another = (estimates(*labels, speech_start=1) for labels in ("aaaa", "bbaa"))
    assert differences(*another, 0.02)[0] == ["event 2, label: a against b"]


@pytest.mark.parametrize(
    ("there", "text"),
    [
        (EVENTS[:-1], "4 events against 3"),
        (changed(0, labels=["b", "a"]), "event 0, labels.0: a against b"),
        (changed(0, window_s=2.0), "event 0, window_s: 1.99 against 2.0"),
        (changed(1, probs={"a": 0.53, "b": 0.47}), "event 1, probs.a: 0.505 against 0.53"),
        (changed(1, extra=1), "event 1: fields"),
        (changed(2, label="a"), "event 2, label: b against a"),
        (changed(2, probs={"a": 1.0}), "event 2, probs"),
        (changed(3, n_clips=2), "event 3, n_clips: 1 against 2"),
    ],
)
def test_everything_else_is_a_difference(there, text):
    wrong, _ = differences(EVENTS, there, 0.02)
    assert wrong
    assert text in wrong[0]


def test_the_largest_difference_is_found():
    _, largest = differences(EVENTS, changed(1, probs={"a": 0.6, "b": 0.4}), 0.02)
    assert largest == pytest.approx(0.095)


def test_one_step_is_derived_from_the_model():
    model = Model()
    scale = model.runtime.output["quantization"][0]
    assert one_step(model) == pytest.approx(scale / model.card.temperature / 2)


def test_every_python_gets_one_runtime_and_its_numpy():
    assert {"tflite-runtime", "numpy"} < set(requirements("3.11"))
    assert {"ai-edge-litert", "numpy"} < set(requirements("3.13"))
    assert "<2" in requirements("3.11")["numpy"]
    assert set(requirements("3.11")) - {"tflite-runtime"} == set(requirements("3.13")) - {
        "ai-edge-litert"
    }
