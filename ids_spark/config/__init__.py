"""Settings of every job, and the reader of configuration files."""
