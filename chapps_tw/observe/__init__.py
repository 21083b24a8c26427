"""What can be seen from outside: metrics, the decision log."""
