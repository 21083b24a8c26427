"""Where the HTTP API listens, and with which token it is called."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from chapps_tw.cli.client import Target
from chapps_tw.cli.session import CommandError, Session
from chapps_tw.config.checks import port_and_interface, unix_path
from chapps_tw.config.settings import Settings
from chapps_tw.security.private_files import explain

_PORTS: Final = {"http": 80, "https": 443}
# The file may be one for curl -H @FILE.
_HEADER: Final = "authorization: bearer "

LOOPBACK: Final = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}
"""The address to connect to, for what listens on all addresses."""


def target_of(session: Session) -> tuple[Target, str]:
    """Return the address of the API, and the token, from the options, the environment or the configuration.

    With an URL, the token of this machine's service is not used: it may be another machine.

    :raises CommandError: with the remedy.
    :raises ConfigError: with all errors of the configuration.
    """
    url = session.url or os.environ.get("CHAPPS_URL", "")
    file = session.token_file or os.environ.get("CHAPPS_TOKEN_FILE", "")
    if url:
        return parse_url(url), read_token(Path(file)) if file else ""
    settings = session.settings
    if not file and settings.api.auth == "none":
        return configured(settings), ""
    return configured(settings), read_token(Path(file or settings.token_path))


def parse_url(url: str) -> Target:
    """Return the target of an URL: ``http://HOST:PORT``, ``https://HOST/PREFIX`` or ``unix:/PATH``.

    :raises CommandError: if it is invalid.
    """
    try:
        parts = urlsplit(url)
        port = _PORTS.get(parts.scheme, 0) if parts.port is None else parts.port
        if parts.scheme == "unix" and parts.path and not parts.netloc:
            return Target("unix", parts.path)
    except ValueError:
        port = 0
    if not port or not parts.hostname or parts.query or parts.username:
        raise CommandError(f"{url!r} must be an URL such as http://127.0.0.1:8080 or unix:/run/chapps/api")
    return Target(parts.scheme, parts.hostname, port, parts.path.rstrip("/"))


def configured(settings: Settings) -> Target:
    """Return the target that ``[API] listen`` names.

    :raises CommandError: if it has no address.
    """
    endpoint = settings.api.listen
    if not endpoint:
        raise CommandError("the HTTP API is turned off: [API] listen is empty")
    if socket := unix_path(endpoint):
        return Target("unix", socket)
    port, interface = port_and_interface(endpoint)
    if port < 1 or endpoint.startswith("haproxy:"):
        raise CommandError(f"[API] listen = {endpoint} has no address to connect to: give --url")
    scheme = "https" if endpoint.startswith("ssl:") else "http"
    return Target(scheme, LOOPBACK.get(interface, interface), port, name=settings.api.hosts[0])


def read_token(path: Path) -> str:
    """Return the token in a file.

    :raises CommandError: with the remedy.
    """
    try:
        text = path.read_text("utf-8").strip()
    except FileNotFoundError:
        raise CommandError(f"{path}: does not exist; the service creates it at its first start") from None
    except OSError as error:
        raise CommandError(f"{path}: cannot be read ({explain(path, error)})") from error
    except UnicodeDecodeError:
        text = "\n"
    token = text[len(_HEADER) :].strip() if text.lower().startswith(_HEADER) else text
    if not token:
        raise CommandError(f"{path}: the first token was revoked; create another with chapps-cli token create")
    if not token.isascii() or not token.isprintable():
        raise CommandError(f"{path}: not a token")
    return token
