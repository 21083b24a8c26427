"""API tokens: 256 random bits each, with a scope.

Two files. ``[API] token_file`` holds the first token in plain text, so that its owner can use it with
curl. ``api-tokens.json`` in the same directory holds the others as SHA-256: random tokens need no
slower hash.
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
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

from chapps_tw.security import private_files

FIRST = "first"
MAX_TOKENS = 1000


class Scope(StrEnum):
    """What a token may do. Each scope includes those before it.

    ``READ``: see everything. ``OPERATOR``: what a help desk does with it: reset and refresh what is live, and create,
    change and end overrides and exemptions. ``FULL``: everything.
    """

    READ = "read"
    OPERATOR = "operator"
    FULL = "full"

    def includes(self, other: Scope) -> bool:
        """Return whether a token of this scope may do what needs the other."""
        order = list(Scope)
        return order.index(self) >= order.index(other)


class TokenError(Exception):
    """A token file cannot be read or written, or a token cannot be created. The text is one sentence."""


class Token(NamedTuple):
    """A stored token.

    :ivar name: :data:`FIRST` is the one stored in plain text.
    :ivar created: epoch seconds.
    :ivar digest: SHA-256 of the token, in hexadecimal.
    """

    name: str
    scope: Scope
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
        self._stamps: tuple[object, ...] | None = None
        self._tokens: Tokens = []

    def find(self, token: str) -> Token | None:
        """Return what is stored of a token, ``None`` if it is unknown. Rereads the files if they have changed.

        :raises TokenError: if a file exists but cannot be read.
        """
        digest = _digest(token)
        found = None
        for each in self._current():
            # Compare with all, so that the timing reveals nothing.
            if hmac.compare_digest(each.digest, digest):
                found = each
        return found

    def has(self, token: Token) -> bool:
        """Return whether a token is still stored, with the same scope. Rereads the files if they have changed.

        :raises TokenError: if a file exists but cannot be read.
        """
        return any((each.digest, each.scope) == (token.digest, token.scope) for each in self._current())

    def _current(self) -> Tokens:
        stamps = (_stamp(self._first), _stamp(self._others))
        if stamps != self._stamps:
            self._tokens = self._read_all()
            self._stamps = stamps
        return self._tokens

    def make_first(self) -> bool:
        """Create the first token unless its file exists; return whether it was created.

        :raises TokenError: if the file cannot be written, or exists but cannot be read.
        """
        if os.path.lexists(self._first):
            self._read_first()
            return False
        try:
            private_files.write_atomically(self._first, f"{secrets.token_urlsafe(32)}\n".encode(), replace=False)
        except FileExistsError:
            return False
        except OSError as error:
            raise _problem(self._first, "the API token cannot be written", error) from error
        return True

    def create(self, name: str, scope: str, created: float) -> str:
        """Create a token and return it. It cannot be retrieved later.

        :param created: epoch seconds.
        :raises TokenError: if the name is taken or invalid, there are too many, or the file cannot be written.
        """
        if not name.isprintable() or not 0 < len(name) <= 64:
            raise TokenError("a token's name must be 1 to 64 printable characters")
        if scope not in set(Scope):
            raise TokenError(f"a token's scope must be one of {', '.join(Scope)}, not {scope!r}")
        with self._locked() as tokens:
            if name == FIRST or any(each.name == name for each in tokens):
                raise TokenError(f"a token named {name!r} exists already")
            if len(tokens) >= MAX_TOKENS:
                raise TokenError(f"there are {MAX_TOKENS} tokens already: revoke some")
            token = secrets.token_urlsafe(32)
            self._write([*tokens, Token(name, Scope(scope), created, _digest(token))])
        return token

    def list(self) -> Tokens:
        """Return all tokens, oldest first.

        :raises TokenError: if a file exists but cannot be read.
        """
        return sorted(self._read_all(), key=lambda each: each.created)

    def revoke(self, name: str) -> bool:
        """Revoke a token with immediate effect; return whether there was one of this name.

        The first token's file is emptied, not removed: the next start would create a new one.

        :raises TokenError: if a file cannot be read or written.
        """
        if name == FIRST:
            return self._revoke_first()
        with self._locked() as tokens:
            remaining = [each for each in tokens if each.name != name]
            if len(remaining) < len(tokens):
                self._write(remaining)
            return len(remaining) < len(tokens)

    def _revoke_first(self) -> bool:
        exists = bool(self._read_first())
        if exists:
            try:
                private_files.write_atomically(self._first.resolve(), b"")
            except OSError as error:
                raise _problem(self._first, "cannot be written", error) from error
        return exists

    def _read_all(self) -> Tokens:
        return self._read_first() + self._read_others()

    def _read_first(self) -> Tokens:
        text = _read(self._first).strip()
        if not text:
            return []
        stamp = _stamp(self._first)
        return [Token(FIRST, Scope.FULL, stamp[0] / 1e9 if stamp else 0.0, _digest(text))]

    def _read_others(self) -> Tokens:
        text = _read(self._others)
        try:
            return [_token(row) for row in json.loads(text)] if text else []
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise TokenError(f"{self._others}: not a list of tokens ({error})") from error

    @contextmanager
    def _locked(self) -> Iterator[Tokens]:
        """Yield the tokens of the second file, holding an exclusive lock."""
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
            private_files.write_atomically(self._others, json.dumps(rows, indent=1).encode())
        except OSError as error:
            raise _problem(self._others, "cannot be written", error) from error


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def _token(row: Any) -> Token:
    """Parse a row of the second file. Raises ValueError, TypeError or KeyError if it is invalid."""
    token = Token(row["name"], Scope(row["scope"]), float(row["created"]), row["sha256"])
    are_texts = isinstance(token.name, str) and isinstance(token.digest, str) and token.digest.isascii()
    if not are_texts or not 0 <= token.created < 1e11:
        raise ValueError("invalid value in a row")
    return token


def _problem(path: Path, what: str, error: OSError) -> TokenError:
    return TokenError(f"{path}: {what} ({private_files.explain(path, error)})")


def _open_lock(path: Path) -> int:
    """Open the lock file; create it if it does not exist."""
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
    with suppress(FileNotFoundError):
        return os.open(path, flags)
    with suppress(FileExistsError):
        return private_files.create(path, os.O_RDWR)
    return os.open(path, flags)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise _problem(path, "cannot be read", error) from error
    except UnicodeDecodeError:
        raise TokenError(f"{path}: cannot be read (not UTF-8 text)") from None
