"""Flows to model-ready features: exact statistics, the preprocessor, histograms, drift."""
