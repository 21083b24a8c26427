"""The HTTP API part, its tokens, and writing the configuration."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from twisted.internet.threads import deferToThread
from twisted.logger import Logger

from chapps_tw.application.part import Part
from chapps_tw.application.start_errors import StartError, place
from chapps_tw.config.load import DEFAULT_PATH
from chapps_tw.config.settings import Settings
from chapps_tw.config.write import Rewriter
from chapps_tw.interfaces.configuration import WrongPasscode
from chapps_tw.rest.app import API
from chapps_tw.security.passcode import verify
from chapps_tw.security.tokens import Token, TokenError, TokenStore
from chapps_tw.ui.page import Page


class Tokens(Part):
    """Creates the first token."""

    log = Logger()

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._store = TokenStore(settings.token_path)

    def find(self, token: str) -> Token | None:
        """See :meth:`~chapps_tw.security.tokens.TokenStore.find`."""
        return self._store.find(token)

    def has(self, token: Token) -> bool:
        """See :meth:`~chapps_tw.security.tokens.TokenStore.has`."""
        return self._store.has(token)

    def open(self) -> None:
        """Create the first token, if the API requires tokens."""
        self._make_first(self._settings, self._store)

    def prepare(self, settings: Settings) -> Callable[[], object]:
        store = TokenStore(settings.token_path)
        self._make_first(settings, store)
        return partial(self._use, settings, store)

    def _use(self, settings: Settings, store: TokenStore) -> None:
        self._settings, self._store = settings, store

    def _make_first(self, settings: Settings, store: TokenStore) -> None:
        try:
            if settings.api.auth == "token" and settings.api.listen:
                store.make_first()
                if not store.list():
                    remedy = "create one with 'chapps-cli token create NAME'"
                    self.log.warn("There is no API token: nobody can use the HTTP API; {remedy}", remedy=remedy)
        except TokenError as error:
            raise StartError(f"{place(settings, 'API', 'token_file')}: {error}") from None


class Http(Part):
    """The API. Its port belongs to :class:`~chapps_tw.application.listening.Listening`."""

    def __init__(self, api: API) -> None:
        self._api = api

    def stop(self) -> Awaitable[None]:
        """Close all connections, and end pending work."""
        return self._api.stop()


class PageForPeople(Part):
    """The page for people. It stops before the ports are closed: what it streams would never end by itself."""

    def __init__(self, page: Page) -> None:
        self._page = page

    def start(self) -> None:
        """Start the timers, and prepare the templates."""
        self._page.start()

    def stop(self) -> None:
        """End all streams and timers."""
        self._page.stop()


class ConfigWriter:
    """Writes the configuration, if the passcode is right."""

    def __init__(self, settings: Settings) -> None:
        self.use(settings)

    def use(self, settings: Settings) -> None:
        """Write these settings, as they were loaded, and accept the passcode that they contain."""
        self._password = settings.chapps.password
        self._file = Rewriter(settings, DEFAULT_PATH)

    async def write(self, passcode: str) -> tuple[str, list[str]]:
        """See ``write_config`` of :class:`~chapps_tw.rest.routers.insight.Insight`.

        :raises WrongPasscode: also if none is set.
        """
        if not self._password:
            raise WrongPasscode(
                "No passcode is set: put what 'chapps-cli admin passcode' prints into [CHAPPS] of the configuration, "
                "and have it read: systemctl reload chapps."
            )
        # scrypt is slow on purpose.
        if not await deferToThread(verify, passcode, self._password):
            raise WrongPasscode("The passcode is wrong.")
        return await deferToThread(self._file.write)
