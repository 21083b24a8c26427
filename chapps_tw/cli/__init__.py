"""The commands of chapps-cli."""
