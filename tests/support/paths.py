"""Paths in the source tree."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "tests" / "data"
# Requests of a real Postfix, one per file.
RECORDED = DATA / "postfix-requests"
