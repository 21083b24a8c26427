"""Encoding names and times for Redis."""

from __future__ import annotations

from hashlib import blake2b

MAX_NAME = 512
"""Maximum length of a name in a key, in bytes. Longer names are replaced by a digest."""


def microseconds(seconds: float) -> bytes:
    """Return a time as an argument of a script."""
    return b"%d" % round(seconds * 1e6)


def milliseconds(seconds: float) -> bytes:
    """Return a TTL as an argument of a command; at least 1."""
    return b"%d" % max(1, round(seconds * 1e3))


def as_bytes(text: str) -> bytes:
    """Encode any str injectively, including surrogates from undecodable bytes or from JSON."""
    return text.encode("utf-8", "surrogatepass")


def key_name(text: str) -> bytes:
    """Return a name as part of a key."""
    name = text.encode("utf-8", "surrogatepass")
    return name if len(name) <= MAX_NAME and not name.startswith(b"%~") else _digest(name)


def hash_tag(text: str) -> bytes:
    """Return a name as a hash tag: escaped braces, and not empty, since Redis ignores an empty hash tag."""
    name = text.encode("utf-8", "surrogatepass")
    if b"%" in name or b"{" in name or b"}" in name:
        name = name.replace(b"%", b"%25").replace(b"{", b"%7B").replace(b"}", b"%7D")
    return name if 0 < len(name) <= MAX_NAME else _digest(name)


def _digest(name: bytes) -> bytes:
    return b"%~" + blake2b(name, digest_size=16).hexdigest().encode()
