"""Benchmarks of the service against a bare Twisted server in the same run."""
