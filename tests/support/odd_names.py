"""Unusual names that every store must accept."""

ODD_NAMES = (
    "é@bücher.example",
    "caf\udce9@example.org",
    "\udcc3\udca9",
    "é",
    "\ud800",
    "nul\0in\0it",
    "nul",
    " ",
    "{brace}:*?",
    "x" * 511,
    "x" * 512,
    "x" * 513,
    "x" * 65536,
    "x" * 65535 + "y",
)
