"""What can be seen from outside: metrics, the decision ring, the decision log."""
