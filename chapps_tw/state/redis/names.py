"""Names and times as they are sent to Redis."""

from __future__ import annotations

from hashlib import blake2b

LONGEST = 512
"""Maximum bytes of a name in a key; longer ones are replaced by a digest."""


def microseconds(seconds: float) -> bytes:
    """Return a time as an argument of a script."""
    return b"%d" % round(seconds * 1e6)


def milliseconds(seconds: float) -> bytes:
    """Return a TTL as an argument of a command; at least 1."""
    return b"%d" % max(1, round(seconds * 1e3))


def as_bytes(text: str) -> bytes:
    """Encode any str unambiguously, including undecodable bytes and surrogates from JSON."""
    return text.encode("utf-8", "surrogatepass")


def key_name(text: str) -> bytes:
    """Return a name as used in a key."""
    name = text.encode("utf-8", "surrogatepass")
    return name if len(name) <= LONGEST and not name.startswith(b"%~") else _digest(name)


def tag(text: str) -> bytes:
    """Return a name as a hash tag: without braces, and never empty, which would not be a tag."""
    name = text.encode("utf-8", "surrogatepass")
    if b"%" in name or b"{" in name or b"}" in name:
        name = name.replace(b"%", b"%25").replace(b"{", b"%7B").replace(b"}", b"%7D")
    return name if 0 < len(name) <= LONGEST else _digest(name)


def _digest(name: bytes) -> bytes:
    return b"%~" + blake2b(name, digest_size=16).hexdigest().encode()
