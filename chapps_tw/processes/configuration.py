"""The configuration of the main process, as it is passed on to workers."""

from __future__ import annotations

import json

# Stands for any bytes in JSON.
_ENCODING = "latin-1"


def as_value(content: bytes) -> str:
    """Return the content of a file, for JSON."""
    return content.decode(_ENCODING)


def content_of(value: str) -> bytes:
    """Return the content of a file that :func:`as_value` has returned."""
    return value.encode(_ENCODING)


def packed(first: bytes, current: bytes) -> bytes:
    """Return what a worker reads from its standard input.

    :param first: the content of the file that the main process has started with: some options need a restart.
    :param current: the content in force.
    """
    return json.dumps([as_value(first), as_value(current)]).encode("ascii")


def unpacked(packed: bytes) -> tuple[bytes, bytes]:
    """Return both contents."""
    first, current = json.loads(packed)
    return content_of(first), content_of(current)
