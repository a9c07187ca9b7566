"""Conversion: from a trained network to files that the device runs, checked against it."""
