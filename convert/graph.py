"""The deployed graph of a run, with probabilities for its logits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge.card import Card
from edge.quiet import quiet_native


def classifier(saved_model: Path, card: Card) -> Any:
    """Return "window", normalised features (1, n_rows, n_features), to "probs" (1, n_labels)."""
    shape = (1, card.n_rows, card.frontend.n_features)
    return with_probs(saved_model, card, "window", shape, lambda window: window)


def with_probs(
    saved_model: Path,
    card: Card,
    name: str,
    shape: tuple[int, ...],
    window_of: Callable[[Any], Any],
) -> Any:
    """Return a TensorFlow ConcreteFunction: an input, through ``window_of``, to "probs".

    The card's temperature is inside, so the probabilities are those of `edge.Model`.
    """
    with quiet_native():
        import tensorflow as tf

        loaded = tf.saved_model.load(str(saved_model))
        network = loaded.signatures["serving_default"]

        def probs(given: tf.Tensor) -> dict[str, tf.Tensor]:
            logits = network(window=window_of(given))["logits"]
            return {"probs": tf.nn.softmax(logits / card.temperature)}

        spec = tf.TensorSpec(shape, tf.float32, name=name)
        function = tf.function(probs, autograph=False).get_concrete_function(spec)
        function.loaded = loaded  # the variables live as long as the function
        return function
