"""How fast the service answers, against a bare Twisted server in the same run."""
