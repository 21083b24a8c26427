"""Policy requests, addresses and decisions."""
