"""A stub resolver, and the HELO whitelist."""
