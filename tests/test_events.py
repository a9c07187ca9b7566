"""What the comparison of two systems' events lets pass, and what not."""

import copy

import pytest

from edge.model import Model
from tests.device import differences, one_step, requirements

START = {
    "event": "start", "labels": ["a", "b"], "window_s": 1.99, "hop_s": 0.25,
    "settings": {"average_s": 0.0, "dwell_s": 0.5, "uncertain_below": 0.0},
}  # fmt: skip


def estimate(label, p, **fields):
    probs = {"a": p, "b": 1 - p}
    return {"event": "estimate", "label": label, "probs": probs, "window_probs": probs, **fields}


EVENTS = [
    START,
    estimate("a", 0.505, end_s=1.99),
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
        [START, estimate("a", 0.52, end_s=1.99), *EVENTS[2:]],
        [START, estimate("b", 0.495, end_s=1.99), *EVENTS[2:]],  # nearly a tie
        changed(3, cpu_s=9.0),
    ],
)
def test_rounding_and_what_a_run_costs_may_differ(there):
    assert differences(EVENTS, there, 0.02)[0] == []


def test_a_clip_of_which_two_labels_are_as_likely_may_be_called_either():
    here, there = ([START, {**estimate(x, 0.505), "event": "clip"}] for x in "ab")
    assert differences(here, there, 0.02)[0] == []


def test_an_estimate_says_what_smoothing_makes_of_the_windows_before_it():
    # Another label is shown as soon as it has led for two hops; that it leads is nearly a tie.
    here = [START, *map(estimate, "aaaab", (0.9, 0.505, 0.2, 0.2, 0.2))]
    there = [START, *map(estimate, "aaabb", (0.9, 0.495, 0.2, 0.2, 0.2))]
    assert here[4]["label"] != there[4]["label"]
    assert differences(here, there, 0.02)[0] == []
    there[3]["label"] = "b"
    wrong, _ = differences(here, there, 0.02)
    assert wrong == ["event 3: b, of which smoothing makes a"]
    there.insert(3, {"event": "speech_start"})  # nothing is held over a pause
    here.insert(3, {"event": "speech_start"})
    wrong, _ = differences(here, there, 0.02)
    assert wrong == [
        "event 4: a, of which smoothing makes b",
        "event 5: a, of which smoothing makes b",
    ]


@pytest.mark.parametrize(
    ("there", "text"),
    [
        (EVENTS[:-1], "4 events against 3"),
        (changed(0, labels=["b", "a"]), "event 0, labels.0: a against b"),
        (changed(0, window_s=2.0), "event 0, window_s: 1.99 against 2.0"),
        (changed(1, probs={"a": 0.53, "b": 0.47}), "event 1, probs.a: 0.505 against 0.53"),
        (changed(1, label="b"), "event 1: b, of which smoothing makes a"),
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
