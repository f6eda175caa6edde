"""Synthetic flows and nights in the form of CICIoMT2024."""
