"""Secrets and the files that hold them."""
