"""Live state in an SQLite file."""
