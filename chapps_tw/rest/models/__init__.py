"""The models that validate what comes in: one module a family of routes."""
