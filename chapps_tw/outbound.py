"""Outbound requests: the user who sends."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from typing import ClassVar

from chapps_tw.config.settings import ConfigError, Settings
from chapps_tw.interfaces.state import CacheVersion
from chapps_tw.mail.addresses import normal_name
from chapps_tw.mail.request import Payload, PolicyRequest

FALLBACK_KEYS = ("sasl_username", "ccert_subject", "sender", "client_address")

_DEFAULTS = Settings()
_XTEXT = re.compile(r"\+([0-9A-F]{2})")


class AuthenticationFailureException(Exception):
    """The request names no user, and the configuration requires one."""


class OutboundPPR(PolicyRequest):
    """A policy request for outbound mail.

    :param payload: as for :class:`~chapps_tw.mail.request.PolicyRequest`.
    :param cfg: the settings; ``None`` uses the defaults.
    """

    __slots__ = ("_alike", "_config", "_user", "_version")

    _config: Settings
    _user: str
    _version: CacheVersion | None
    _alike: int
    _memoized_routines: ClassVar[dict[tuple[str, ...], Callable[[OutboundPPR], str]]] = {}

    def __init__(self, payload: Payload, *, cfg: Settings | None = None) -> None:
        super().__init__(payload)
        _set_config(self, cfg or _DEFAULTS)
        _set_user(self, "")
        _set_version(self, None)
        _set_alike(self, 0)

    @classmethod
    def clear_memoized_routines(cls) -> None:
        """Clear the cache of search functions."""
        cls._memoized_routines.clear()

    @property
    def user(self) -> str:
        """The user who sends, in normal form. Cached.

        :raises AuthenticationFailureException: if the request names no user and ``require_user_key`` is on.
        :raises ValueError: if the request names no user and ``require_user_key`` is off.
        :raises ConfigError: if ``require_user_key`` is on and ``user_key`` is empty.
        """
        if self._user:
            return self._user
        try:
            user = self._search_function()(self)
        except ValueError as error:
            if self._config.chapps.require_user_key:
                raise AuthenticationFailureException(str(error)) from None
            raise
        user = normal_name(user, self._config.chapps.fold_case)
        _set_user(self, user)
        return user

    @property
    def known_user(self) -> str:
        """The cached user, ``""`` if :attr:`user` has not found one yet. Never raises."""
        return self._user

    def find_user(self) -> None:
        """Have :attr:`known_user` name the user, if the request names one. Never raises."""
        with suppress(AuthenticationFailureException, ConfigError, ValueError):
            _ = self.user

    @property
    def version(self) -> CacheVersion | None:
        """The version of the values in memory that decisions about this request rely on; ``None`` if on none."""
        return self._version

    @property
    def alike(self) -> int:
        """How many policies said the same about any request like this one."""
        return self._alike

    def rely_on(self, version: CacheVersion, alike: bool = False) -> None:
        """Note a version. The first one stays: a policy has decided by it. Whoever answers must have it confirmed.

        :param alike: whether the policy says the same about any request with the same values of its ``depends_on``, as
            long as the version stays: see :class:`~chapps_tw.policies.slots.Policy`.
        """
        if self._version is None:
            _set_version(self, version)
        if alike:
            _set_alike(self, self._alike + 1)

    def recall(self, user: str, version: CacheVersion) -> None:
        """Take user and version from a request that is alike."""
        _set_user(self, user)
        _set_version(self, version)

    def rely_on_nothing(self) -> None:
        """Forget the version: it is confirmed, or the policies decide again."""
        _set_version(self, None)
        _set_alike(self, 0)

    def _search_function(self) -> Callable[[OutboundPPR], str]:
        """Return the function that finds the user and raises ``ValueError`` if there is none. May be overridden."""
        path = search_path(self._config)
        found = self._memoized_routines.get(path)
        if found is None:
            found = self._memoized_routines[path] = _searcher(path)
        return found


# Faster than object.__setattr__, which looks these up by name.
_set_config: Callable[[OutboundPPR, Settings], None] = OutboundPPR.__dict__["_config"].__set__
_set_user: Callable[[OutboundPPR, str], None] = OutboundPPR.__dict__["_user"].__set__
_set_version: Callable[[OutboundPPR, CacheVersion | None], None] = OutboundPPR.__dict__["_version"].__set__

_set_alike: Callable[[OutboundPPR, int], None] = OutboundPPR.__dict__["_alike"].__set__


def search_path(settings: Settings) -> tuple[str, ...]:
    """Return the attributes that may name the user, in search order.

    :raises ConfigError: if ``require_user_key`` is on and ``user_key`` is empty.
    """
    return _path(settings.chapps.user_key, settings.chapps.require_user_key)


@lru_cache(64)
def _path(key: str, required: bool) -> tuple[str, ...]:
    if required:
        if not key:
            raise ConfigError(["[CHAPPS] user_key = '': must name a request attribute while require_user_key is True"])
        return (key,)
    return (key, *(each for each in FALLBACK_KEYS if each != key)) if key else FALLBACK_KEYS


def _searcher(path: tuple[str, ...]) -> Callable[[OutboundPPR], str]:
    # With several attributes, the text "None" means no value. With one, it may be a login.
    none = "None" if len(path) > 1 else ""

    def search(request: OutboundPPR) -> str:
        for key in path:
            value = request.get(key)
            if value and value != none:
                return decode_xtext(value) if key == "ccert_subject" else value
        raise ValueError("none of these attributes has a value: " + ", ".join(path))

    return search


def decode_xtext(value: str) -> str:
    """Decode xtext (RFC 3461, section 4), which Postfix uses for certificate names."""
    if "+" not in value:
        return value
    raw = value.encode("utf-8", "surrogateescape").decode("latin-1")
    decoded = _XTEXT.sub(lambda match: chr(int(match[1], 16)), raw)
    return decoded.encode("latin-1").decode("utf-8", "surrogateescape")
