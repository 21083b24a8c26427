"""Hashes and verifies the passcode that is required to write the configuration over HTTP."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets

# scrypt's N, r and p: 32 MiB and about a quarter of a second per guess.
_COST, _BLOCK, _PARALLEL = 2**15, 8, 3
_MAX_MEMORY = 64 * 2**20
_FORM = re.compile(r"scrypt\$(\d{1,7})\$(\d{1,2})\$(\d{1,2})\$([A-Za-z0-9+/=]{8,128})\$([A-Za-z0-9+/=]{24,128})")
_LEGACY_FORM = re.compile(r"[0-9a-f]{64}")


def make_hash(passcode: str) -> str:
    """Hash a passcode with scrypt (RFC 7914).

    Blocks for about a quarter of a second: do not call it on the reactor.

    :returns: ``scrypt$n$r$p$salt$hash``, salt and hash in base64.
    """
    salt = secrets.token_bytes(16)
    digest = _scrypt(passcode, salt, _COST, _BLOCK, _PARALLEL, 32)
    return "$".join(("scrypt", str(_COST), str(_BLOCK), str(_PARALLEL), _base64(salt), _base64(digest)))


def is_hash(stored: str) -> bool:
    """Return whether a text is a hash that :func:`verify` accepts."""
    return bool(_LEGACY_FORM.fullmatch(stored) or _FORM.fullmatch(stored))


def verify(passcode: str, stored: str) -> bool:
    """Return whether a passcode matches a hash. Compares in constant time.

    Blocks for about a quarter of a second: do not call it on the reactor.

    :param stored: from :func:`make_hash`, or the unsalted SHA-256 hex digest of CHAPPS. Anything else,
        including the empty string, matches no passcode.
    """
    if _LEGACY_FORM.fullmatch(stored):
        return hmac.compare_digest(hashlib.sha256(_bytes(passcode)).hexdigest(), stored)
    match = _FORM.fullmatch(stored)
    if not match:
        return False
    cost, block, parallel = int(match[1]), int(match[2]), int(match[3])
    try:
        salt, expected = base64.b64decode(match[4], validate=True), base64.b64decode(match[5], validate=True)
        digest = _scrypt(passcode, salt, cost, block, parallel, len(expected))
    except ValueError:
        return False
    return hmac.compare_digest(digest, expected)


def _scrypt(passcode: str, salt: bytes, cost: int, block: int, parallel: int, length: int) -> bytes:
    return hashlib.scrypt(_bytes(passcode), salt=salt, n=cost, r=block, p=parallel, maxmem=_MAX_MEMORY, dklen=length)


def _bytes(passcode: str) -> bytes:
    return passcode.encode("utf-8", "surrogateescape")


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")
