"""Real servers for the tests, each private to its test run, on loopback or a unix socket."""
