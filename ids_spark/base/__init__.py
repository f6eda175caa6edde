"""What every other package builds on: errors, log lines, the zipped package, arrays, the report of a job."""
