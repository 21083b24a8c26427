"""Additions to Twisted's sockets."""
