"""CHAPPS-TW: a policy service for Postfix."""
