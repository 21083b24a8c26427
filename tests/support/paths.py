"""Paths in the source tree."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "tests" / "data"
# Requests of a real Postfix, one per file: of Debian 12's, and of Debian 13's.
RECORDED = DATA / "postfix-requests"
RECORDED_3_10 = DATA / "postfix-3.10-requests"
