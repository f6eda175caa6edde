"""How a job starts and ends."""
