"""What becomes of flagged flows: incidents, their severity, accepted behaviour, pseudonyms, exports."""
