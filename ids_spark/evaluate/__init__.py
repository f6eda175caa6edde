"""Metrics from confusion matrices, comparison with a random forest and published figures, the leakage audit."""
