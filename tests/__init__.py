import edge  # noqa: F401  Before NumPy, for which it sets how many threads there are.
