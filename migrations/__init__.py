"""Alembic's environment for the policy book."""
