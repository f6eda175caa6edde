"""Confusion matrices to metrics; reference models and published figures beside ours; the leakage audit."""
