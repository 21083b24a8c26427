"""An SMTP server that takes mails, or not, and an HTTP server that is told notices. Both run in threads."""

from __future__ import annotations

import email
import socket
import socketserver
import ssl
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from email.message import EmailMessage
from email.policy import default
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.servers.common import free_port


class Mail(NamedTuple):
    """A mail that was taken."""

    sender: str
    recipient: str
    data: bytes

    @property
    def message(self) -> EmailMessage:
        found = email.message_from_bytes(self.data, policy=default)
        assert isinstance(found, EmailMessage)
        return found


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    # Those that hang are not waited for.
    block_on_close = False
    request_queue_size = 100


class SmtpReceiver:
    """Takes mails (RFC 5321) at a port of loopback, while it is up.

    :ivar mails: that were taken.
    :ivar connections: number of connections.
    :ivar commands: of all connections, in order.
    :param reply: returns the reply to a command line, or to the end of the data (``.``); ``""`` for the usual one.
    :param extensions: lines of the reply to EHLO.
    :param certificate: and key, for TLS: from the beginning, unless STARTTLS is one of the extensions.
    """

    def __init__(
        self,
        reply: Callable[[str], str] = lambda line: "",
        extensions: tuple[str, ...] = (),
        certificate: tuple[Path, Path] | None = None,
    ) -> None:
        self._tls: ssl.SSLContext | None = None
        if certificate:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(*certificate)
        self.port = free_port()
        self.mails: list[Mail] = []
        self.commands: list[str] = []
        self._reply = reply
        self._extensions = extensions
        self.connections = 0
        self._server: _Server | None = None
        self._go_on = threading.Event()
        self._go_on.set()

    def hang_until(self, go_on: threading.Event) -> None:
        """Say nothing on new connections until an event is set."""
        self._go_on = go_on

    def up(self) -> SmtpReceiver:
        receiver = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with suppress(OSError):
                    receiver._serve(self.request)

        self._server = _Server(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def down(self) -> None:
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def _serve(self, connection: socket.socket) -> None:
        sender = recipient = ""
        self.connections += 1
        self._go_on.wait()
        if self._tls and "STARTTLS" not in self._extensions:
            connection = self._tls.wrap_socket(connection, server_side=True)
        lines, out = connection.makefile("rb"), connection.makefile("wb", 0)
        out.write(b"220 test\r\n")
        while (line := lines.readline()) and (text := line.decode().strip()).upper() != "QUIT":
            self.commands.append(text)
            reply = self._reply(text) or self._usual(text)
            out.write(f"{reply}\r\n".encode())
            if text == "STARTTLS" and self._tls:
                connection = self._tls.wrap_socket(connection, server_side=True)
                lines, out = connection.makefile("rb"), connection.makefile("wb", 0)
            elif text.upper().startswith("MAIL FROM:"):
                sender = text[10:].strip("<>")
            elif text.upper().startswith("RCPT TO:"):
                recipient = text[8:].strip("<>")
            elif reply.startswith("354"):
                data = b"".join(iter(lines.readline, b".\r\n"))
                end = self._reply(".") or "250 taken"
                if end.startswith("250"):
                    self.mails.append(Mail(sender, recipient, data.replace(b"\n..", b"\n.")))
                out.write(f"{end}\r\n".encode())

    def _usual(self, line: str) -> str:
        verb = line.partition(" ")[0].upper()
        if verb == "EHLO":
            lines = ["test", *self._extensions]
            return "\r\n".join([*(f"250-{each}" for each in lines[:-1]), f"250 {lines[-1]}"])
        return {"DATA": "354 go on", "AUTH": "235 welcome", "STARTTLS": "220 go on"}.get(verb, "250 ok")


class Post(NamedTuple):
    """A request that was received."""

    headers: dict[str, str]
    body: bytes


class WebhookReceiver:
    """Receives posts. It answers each with the next of ``answers``, and 204 after them; 0 never answers.

    :ivar posts: those that were answered with a 2xx.
    :ivar refused: all others.
    """

    def __init__(self, *answers: int) -> None:
        self.posts: list[Post] = []
        self.refused: list[Post] = []
        self.answers = deque(answers)
        self._end = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver._receive(self)

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/hook?token=secret-path"

    def _receive(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers["Content-Length"]))
        post = Post({name.lower(): value for name, value in request.headers.items()}, body)
        status = self.answers.popleft() if self.answers else 204
        (self.posts if 200 <= status < 300 else self.refused).append(post)
        if not status:
            self._end.wait()
            return
        request.send_response(status)
        request.send_header("Content-Length", "0")
        request.end_headers()

    def stop(self) -> None:
        self._end.set()
        self._server.shutdown()
        self._server.server_close()
