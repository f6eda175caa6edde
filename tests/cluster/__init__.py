"""Tests on a real Spark standalone cluster: `make test-cluster`."""
