"""Where things are in the source tree."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "tests" / "data"
# What a real Postfix has asked, one request a file.
RECORDED = DATA / "postfix-requests"
