"""Incidents in the formats of other systems."""
