"""The Lua scripts, and how commands look on the wire (RESP2, https://redis.io/docs/latest/develop/reference/protocol-spec/)."""

from __future__ import annotations

from hashlib import sha1
from importlib.resources import files
from typing import NamedTuple


def strings(*values: bytes) -> bytes:
    """Return bulk strings, concatenated."""
    return b"".join([b"$%d\r\n%b\r\n" % (len(value), value) for value in values])


def command(*words: bytes) -> bytes:
    """Return a complete command."""
    return b"*%d\r\n%b" % (len(words), strings(*words))


class Shape(NamedTuple):
    """The start of a script call, for a number of keys and arguments.

    :ivar by_sha: with EVALSHA.
    :ivar whole: with EVAL, for a server that does not know the script.
    """

    by_sha: bytes
    whole: bytes


class Script:
    """A Lua script: preludes and a body, each a file of this package."""

    def __init__(self, *names: str) -> None:
        folder = files(__package__) / "lua"
        self.source = "\n".join((folder / f"{name}.lua").read_text("utf-8") for name in ("clock", *names)).encode()
        self.sha = sha1(self.source, usedforsecurity=False).hexdigest().encode()

    def words(self, *keys: bytes) -> tuple[bytes, ...]:
        """Return the command that runs the script without arguments and without the time."""
        return (b"EVAL", self.source, b"%d" % len(keys), *keys, b"@0")

    def shape(self, keys: int, arguments: int) -> Shape:
        """Return the start of a call with so many keys and arguments; the time is one more argument."""
        count, number = b"*%d\r\n" % (keys + arguments + 4), strings(b"%d" % keys)
        return Shape(
            count + strings(b"EVALSHA", self.sha) + number,
            count + strings(b"EVAL", self.source) + number,
        )


PROBE = Script("probe")
"""Runs every command that the other scripts use."""
