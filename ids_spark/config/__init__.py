"""How a run is told its settings, and what they are."""
