"""The command `ids-spark`: what the jobs are, what their settings mean, whether a configuration is valid."""
