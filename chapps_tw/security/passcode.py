"""The passcode that writing the configuration over HTTP asks for: hashing and checking it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets

# 32 MiB and about a quarter of a second for each guess.
_COST, _BLOCK, _PARALLEL = 2**15, 8, 3
_MOST_MEMORY = 64 * 2**20
_FORM = re.compile(r"scrypt\$(\d{1,7})\$(\d{1,2})\$(\d{1,2})\$([A-Za-z0-9+/=]{8,128})\$([A-Za-z0-9+/=]{24,128})")
_LEGACY_FORM = re.compile(r"[0-9a-f]{64}")


def make_hash(passcode: str) -> str:
    """Hash a passcode with scrypt (RFC 7914).

    Takes about a quarter of a second: not for the reactor's thread.

    :returns: ``scrypt$n$r$p$salt$hash``, salt and hash in base64.
    """
    salt = secrets.token_bytes(16)
    found = _scrypt(passcode, salt, _COST, _BLOCK, _PARALLEL, 32)
    return "$".join(("scrypt", str(_COST), str(_BLOCK), str(_PARALLEL), _text(salt), _text(found)))


def is_hash(stored: str) -> bool:
    """Whether this has the form of a hash that :func:`verify` reads."""
    return bool(_LEGACY_FORM.fullmatch(stored) or _FORM.fullmatch(stored))


def verify(passcode: str, stored: str) -> bool:
    """Whether a passcode is the one that was hashed, compared in constant time.

    Takes about a quarter of a second: not for the reactor's thread.

    :param stored: from :func:`make_hash`, or the unsalted SHA-256 hex digest of CHAPPS. Anything else,
        the empty string too, matches no passcode.
    """
    if _LEGACY_FORM.fullmatch(stored):
        return hmac.compare_digest(hashlib.sha256(_bytes(passcode)).hexdigest(), stored)
    match = _FORM.fullmatch(stored)
    if not match:
        return False
    cost, block, parallel = int(match[1]), int(match[2]), int(match[3])
    try:
        salt, wanted = base64.b64decode(match[4], validate=True), base64.b64decode(match[5], validate=True)
        found = _scrypt(passcode, salt, cost, block, parallel, len(wanted))
    except ValueError:
        return False
    return hmac.compare_digest(found, wanted)


def _scrypt(passcode: str, salt: bytes, cost: int, block: int, parallel: int, length: int) -> bytes:
    return hashlib.scrypt(_bytes(passcode), salt=salt, n=cost, r=block, p=parallel, maxmem=_MOST_MEMORY, dklen=length)


def _bytes(passcode: str) -> bytes:
    return passcode.encode("utf-8", "surrogateescape")


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")
