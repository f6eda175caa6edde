"""Start and end of a job."""
