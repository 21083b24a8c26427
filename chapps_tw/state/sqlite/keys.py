"""The keys of names in the file."""

from __future__ import annotations

from hashlib import blake2b
from os import urandom

_MAX_KEY = 512


def key(name: str) -> bytes:
    """Return the key for a name: any text, distinct for distinct names, at most 512 bytes."""
    # surrogatepass is injective; surrogateescape would encode "\udcc3\udca9" and "é" alike.
    encoded = name.encode("utf-8", "surrogatepass")
    if len(encoded) <= _MAX_KEY:
        return encoded
    return b"\xff" + blake2b(encoded, digest_size=32).digest()


def message_key(instance: str) -> bytes:
    """Return the key of a message: distinct for distinct instances, at most 512 bytes, none of them 0xFF."""
    encoded = instance.encode("utf-8", "surrogatepass")
    if len(encoded) <= _MAX_KEY:
        return encoded
    return b"\xfe" + blake2b(encoded, digest_size=32).hexdigest().encode()


def unique_message_key() -> bytes:
    """Return the key of a message without an instance: no other message has it."""
    return b"\xfd" + urandom(16).hex().encode()


def readable(stored: bytes) -> str:
    """Return the name for a key; if the name was too long to be stored, its digest."""
    return stored[1:].hex() if stored[:1] == b"\xff" else stored.decode("utf-8", "surrogatepass")


def account_key(space: bytes, name: bytes) -> bytes:
    """Return the key of an account, for the keys of its space and its name: a digest of 16 bytes."""
    return blake2b(b"%d:%b%b" % (len(space), space, name), digest_size=16).digest()
