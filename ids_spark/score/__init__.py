"""Flows to predictions: a labelled split, or a night of flow logs."""
