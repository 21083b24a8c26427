"""The policy delegation protocol of Postfix."""
