"""What Twisted's sockets lack."""
