"""Flagged flows to incidents: aggregation, severity, allow-list, pseudonyms, exports."""
