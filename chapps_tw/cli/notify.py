"""``chapps-cli notify test``: asks the running service to send a test."""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path
from typing import Any, Final

from chapps_tw.config.checks import port_and_interface, unix_path
from chapps_tw.config.settings import Settings

# The service waits up to 40 s for the relay, and 10 s for the webhook.
_TIMEOUT: Final = 60.0


class NotifyError(Exception):
    """The test cannot be asked for, or was not taken. The text is one sentence."""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_TIMEOUT)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def test(settings: Settings) -> str:
    """Return what was sent to whom, a line for each.

    :raises NotifyError: if the service cannot be asked, or something was not taken.
    """
    headers = {}
    if settings.api.auth == "token":
        headers["Authorization"] = f"Bearer {_token(settings)}"
    connection = _connection(settings)
    try:
        connection.request("POST", "/notify/test/", headers=headers)
        answer = connection.getresponse()
        found = json.loads(answer.read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise NotifyError(f"the service at {settings.api.listen} cannot be asked: {error}") from None
    finally:
        connection.close()
    if answer.status != 200:
        raise NotifyError(str(found.get("detail")))
    return _report(found["response"])


def _report(told: list[dict[str, Any]]) -> str:
    problems = [f"{each['channel']}: {each['problem']}" for each in told if not each["sent"]]
    if problems:
        raise NotifyError("; ".join(problems))
    return "\n".join(f"{each['channel']}: sent" for each in told)


def _token(settings: Settings) -> str:
    try:
        return Path(settings.token_path).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise NotifyError(f"the token cannot be read: {error}") from None


def _connection(settings: Settings) -> http.client.HTTPConnection:
    listen = settings.api.listen
    if path := unix_path(listen):
        return _UnixConnection(path)
    port, interface = port_and_interface(listen)
    if port < 0 or listen.startswith("ssl:"):
        raise NotifyError(f"[API] listen = {listen!r}: the service can be asked over TCP or a unix socket only")
    host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(interface, interface)
    return http.client.HTTPConnection(host, port, timeout=_TIMEOUT)
