"""Alembic environment of the policy book."""
