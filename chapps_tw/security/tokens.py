"""API tokens: 256 random bits each, read-only or full.

Two files. The one that ``[API] token_file`` names holds the first token as it is, so that its owner
can use it with curl. ``api-tokens.json`` beside it holds the rest, as SHA-256: of a random token
nothing slower is needed.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from chapps_tw.security import private_files

FIRST = "first"
SCOPES = ("read", "full")
MAX_TOKENS = 1000


class TokenError(Exception):
    """A token file cannot be read or written, or a token cannot be made. Says why in one sentence."""


class Token(NamedTuple):
    """What is kept of a token.

    :ivar name: what it is called; :data:`FIRST` is the one that is kept as it is.
    :ivar scope: ``read`` or ``full``.
    :ivar created: epoch seconds.
    :ivar digest: SHA-256 of the token, in hexadecimal.
    """

    name: str
    scope: str
    created: float
    digest: str


Tokens = list[Token]


class TokenStore:
    """The tokens of one node.

    :param path: of the file that holds the first token.
    """

    def __init__(self, path: str) -> None:
        self._first = Path(path)
        self._others = self._first.parent / "api-tokens.json"
        self._seen: tuple[object, ...] | None = None
        self._tokens: Tokens = []

    def scope_of(self, token: str) -> str | None:
        """The scope of a token, ``None`` when it is none of ours. Changed files are noticed.

        :raises TokenError: when a file is there and cannot be read.
        """
        seen = (_stamp(self._first), _stamp(self._others))
        if seen != self._seen:
            self._tokens = self._read_all()
            self._seen = seen
        digest = _digest(token)
        scope = None
        for each in self._tokens:
            # All are compared, so that the time tells nothing.
            if hmac.compare_digest(each.digest, digest):
                scope = each.scope
        return scope

    def make_first(self) -> bool:
        """Make the first token unless its file is there; returns whether it was made.

        :raises TokenError: when the file cannot be written, or is there and cannot be read.
        """
        if os.path.lexists(self._first):
            self._read_first()
            return False
        try:
            private_files.write_whole(self._first, f"{secrets.token_urlsafe(32)}\n".encode(), replace=False)
        except FileExistsError:
            return False
        except OSError as error:
            raise _problem(self._first, "the API token cannot be written", error) from error
        return True

    def create(self, name: str, scope: str, created: float) -> str:
        """Make a token; returns it. It is shown this once.

        :param created: epoch seconds.
        :raises TokenError: when the name is taken or unfit, there are too many, or the file cannot be written.
        """
        if not name.isprintable() or not 0 < len(name) <= 64:
            raise TokenError("a token's name must be 1 to 64 printable characters")
        if scope not in SCOPES:
            raise TokenError(f"a token's scope must be one of {', '.join(SCOPES)}, not {scope!r}")
        with self._locked() as tokens:
            if name == FIRST or any(each.name == name for each in tokens):
                raise TokenError(f"there is a token named {name!r} already")
            if len(tokens) >= MAX_TOKENS:
                raise TokenError(f"there are {MAX_TOKENS} tokens already")
            token = secrets.token_urlsafe(32)
            self._write([*tokens, Token(name, scope, created, _digest(token))])
        return token

    def list(self) -> Tokens:
        """All tokens, oldest first.

        :raises TokenError: when a file is there and cannot be read.
        """
        return sorted(self._read_all(), key=lambda each: each.created)

    def revoke(self, name: str) -> bool:
        """Make a token useless, at once; returns whether there was one of this name.

        The first token's file is emptied, not removed: the next start would make another one.

        :raises TokenError: when a file cannot be read or written.
        """
        if name == FIRST:
            return self._revoke_first()
        with self._locked() as tokens:
            left = [each for each in tokens if each.name != name]
            if len(left) < len(tokens):
                self._write(left)
            return len(left) < len(tokens)

    def _revoke_first(self) -> bool:
        had = bool(self._read_first())
        if had:
            try:
                private_files.write_whole(self._first.resolve(), b"")
            except OSError as error:
                raise _problem(self._first, "cannot be written", error) from error
        return had

    def _read_all(self) -> Tokens:
        return self._read_first() + self._read_others()

    def _read_first(self) -> Tokens:
        text = _read(self._first).strip()
        if not text:
            return []
        made = _stamp(self._first)
        return [Token(FIRST, "full", made[0] / 1e9 if made else 0.0, _digest(text))]

    def _read_others(self) -> Tokens:
        text = _read(self._others)
        try:
            return [_token(row) for row in json.loads(text)] if text else []
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise TokenError(f"{self._others}: is no list of tokens ({error})") from error

    @contextmanager
    def _locked(self) -> Iterator[Tokens]:
        """The tokens of the second file, while nobody else changes them."""
        lock = self._others.with_suffix(".lock")
        try:
            descriptor = _open_lock(lock)
        except OSError as error:
            raise _problem(lock, "cannot be locked", error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield self._read_others()
        finally:
            os.close(descriptor)

    def _write(self, tokens: Tokens) -> None:
        rows = [
            {"name": each.name, "scope": each.scope, "created": each.created, "sha256": each.digest} for each in tokens
        ]
        try:
            private_files.write_whole(self._others, json.dumps(rows, indent=1).encode())
        except OSError as error:
            raise _problem(self._others, "cannot be written", error) from error


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def _token(row: Any) -> Token:
    """A row of the second file. Raises ValueError, TypeError or KeyError when it is none."""
    token = Token(row["name"], row["scope"], float(row["created"]), row["sha256"])
    words = isinstance(token.name, str) and isinstance(token.digest, str) and token.digest.isascii()
    if not words or token.scope not in SCOPES or not 0 <= token.created < 1e11:
        raise ValueError("a row has other values")
    return token


def _problem(path: Path, what: str, error: OSError) -> TokenError:
    return TokenError(f"{path}: {what} ({private_files.explain(path, error)})")


def _open_lock(path: Path) -> int:
    """Open the file that is locked, and make it where it is not there yet."""
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
    with suppress(FileNotFoundError):
        return os.open(path, flags)
    with suppress(FileExistsError):
        return private_files.create(path, os.O_RDWR)
    return os.open(path, flags)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise _problem(path, "cannot be read", error) from error
    except UnicodeDecodeError:
        raise TokenError(f"{path}: cannot be read (it is no text)") from None
