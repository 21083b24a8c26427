"""Real servers for the tests, private to each test run, on loopback or a unix socket."""
