"""What policies and the HTTP API need, whoever provides it."""
