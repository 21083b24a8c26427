"""The configuration: each option, reading, checking and writing it."""
