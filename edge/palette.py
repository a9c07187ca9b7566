"""A colour and a letter for each label, the same on the terminal, the page and in pictures."""

from __future__ import annotations

from collections.abc import Sequence

# Assumed: of middle lightness, so that they can be read on black and on white.
COLOURS = ("#d64545", "#4a7fd6", "#5a9e3d", "#9a5fd0", "#c98a00", "#7a8594", "#2f9aa3",
           "#d6679b", "#8a6d4b")  # fmt: skip


def colours(labels: Sequence[str]) -> dict[str, str]:
    """Return the colour of each label, as #rrggbb."""
    return {label: COLOURS[n % len(COLOURS)] for n, label in enumerate(labels)}


def letters(labels: Sequence[str]) -> dict[str, str]:
    """Return for each label its first letter that no label before it has taken."""
    found: dict[str, str] = {}
    for label in labels:
        taken = found.values()
        found[label] = next((c for c in label.upper() if c not in taken), "?")
    return found
