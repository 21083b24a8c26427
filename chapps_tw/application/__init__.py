"""All parts, made and joined."""
