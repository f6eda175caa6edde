"""Used by every other package: errors, log lines, the package as a zip, array types, the report of a job."""
