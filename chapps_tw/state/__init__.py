"""Live state: an SQLite file inside this process, or Redis."""
