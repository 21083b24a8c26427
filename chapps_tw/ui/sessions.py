"""Sessions of the page: who has logged in with which token, until when."""

from __future__ import annotations

import hashlib
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from chapps_tw.security.tokens import Token

LIFETIME = 12 * 3600.0
"""Seconds after which a session ends."""

MAX_SESSIONS = 1000
MAX_OF_TOKEN = 20
"""Sessions at the same time, and of one token: the oldest one ends."""


@dataclass
class Session:
    """A session.

    :ivar token: that it was begun with; ``None`` if none is needed.
    :ivar ends: by the monotonic clock.
    :ivar csrf: must be in every form that is sent.
    :ivar notices: sentences to show once.
    """

    token: Token | None
    ends: float
    csrf: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    notices: list[str] = field(default_factory=list)


class Sessions:
    """All sessions, in memory. Their ids are random, and only their digests are kept.

    :param seconds: monotonic clock.
    :param has_token: returns whether a token is still valid.
    """

    def __init__(self, seconds: Callable[[], float], has_token: Callable[[Token], bool]) -> None:
        self._seconds = seconds
        self._has_token = has_token
        self._sessions: OrderedDict[bytes, Session] = OrderedDict()

    def begin(self, token: Token | None) -> str:
        """Begin a session; return its id, which nobody knew before."""
        of_token = [key for key, each in self._sessions.items() if each.token == token]
        for key in of_token[: max(0, len(of_token) + 1 - MAX_OF_TOKEN)]:
            del self._sessions[key]
        if len(self._sessions) >= MAX_SESSIONS:
            self._sessions.popitem(last=False)
        id = secrets.token_urlsafe(32)
        self._sessions[_digest(id)] = Session(token, self._seconds() + LIFETIME)
        return id

    def find(self, id: str) -> Session | None:
        """Return a session; ``None`` if there is none, if its time is over, or if its token was revoked.

        :raises TokenError: if the tokens cannot be read.
        """
        session = self._sessions.get(_digest(id))
        if session is None:
            return None
        if session.ends <= self._seconds() or not (session.token is None or self._has_token(session.token)):
            self.end(id)
            return None
        return session

    def end(self, id: str) -> None:
        """End a session, if there is one."""
        self._sessions.pop(_digest(id), None)


def _digest(id: str) -> bytes:
    return hashlib.sha256(id.encode("utf-8", "surrogatepass")).digest()
