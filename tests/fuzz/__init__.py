"""A fuzz test: mutated inputs of jobs, one after the other in one process; see `__main__` for how to run it."""
