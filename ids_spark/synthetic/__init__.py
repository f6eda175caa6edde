"""Synthetic flows and nights in the shape of CICIoMT2024."""
