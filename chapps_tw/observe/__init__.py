"""Observability: metrics, the decision ring, the decision log."""
