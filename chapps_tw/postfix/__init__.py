"""The policy protocol of Postfix."""
