"""CHAPPS-TW: a policy service for Postfix."""

__version__ = "0.1.0"
