"""Notification of systemd (sd_notify(3))."""

from __future__ import annotations

import socket
from collections.abc import Mapping


def notify(environ: Mapping[str, str], message: str) -> None:
    """Send a message such as ``READY=1`` to the service manager, if there is one."""
    address = environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address[0] == "@":
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        try:
            sender.connect(address)
            sender.sendall(message.encode())
        except OSError:
            return
