"""Private Redis servers and Sentinels, each in its own directory."""

from __future__ import annotations

import datetime
import ipaddress
import signal
import socket
import ssl
from functools import partial
from pathlib import Path
from typing import Any

import hiredis
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.support.servers.common import Process, free_port, program, wait_until


class Authority:
    """A throw-away certificate authority. Files: ``ca.pem``, and ``NAME.pem``, ``NAME.key`` of each server."""

    def __init__(self, folder: Path, name: str = "Test CA") -> None:
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = self._sign(self._name, self._key, x509.BasicConstraints(ca=True, path_length=None))
        self.path = folder / "ca.pem"
        self.path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str) -> tuple[Path, Path]:
        """Return certificate and key for a server name or address."""
        key = ec.generate_private_key(ec.SECP256R1())
        alternative: x509.GeneralName
        try:
            alternative = x509.IPAddress(ipaddress.ip_address(name))
        except ValueError:
            alternative = x509.DNSName(name)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = self._sign(subject, key, x509.SubjectAlternativeName([alternative]))
        paths = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        paths[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return paths

    def _sign(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, extension: x509.ExtensionType
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateBuilder(
            self._name, subject, key.public_key(), x509.random_serial_number(),
            now - datetime.timedelta(days=1), now + datetime.timedelta(days=1),
        )  # fmt: skip
        return builder.add_extension(extension, critical=True).sign(self._key, hashes.SHA256())


class RedisProcess:
    """A redis-server on a loopback port and a unix socket, without persistence.

    :ivar port, path: where it listens; kept when it is restarted.
    :param options: further options; ``{"tls": (certificate, key)}`` makes the port a TLS port.
    """

    def __init__(self, folder: Path, password: str = "", tls: tuple[Path, Path] | None = None, **options: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._program = program("redis-server", "valkey-server")
        self.folder = folder
        self.password = password
        self.port = free_port()
        self.path = str(folder / "redis.sock")
        self.options = {
            # Its process title would overwrite the environment, which guard.py needs.
            "set-proc-title": "no",
            "save": "",
            "appendonly": "no",
            "bind": "127.0.0.1",
            "unixsocket": self.path,
            "dir": str(folder),
        }
        if tls:
            self.options |= {"port": "0", "tls-port": str(self.port), "tls-auth-clients": "no"}
            self.options |= {"tls-cert-file": str(tls[0]), "tls-key-file": str(tls[1]), "tls-ca-cert-file": str(tls[0])}
        else:
            self.options["port"] = str(self.port)
        if password:
            self.options |= {"requirepass": password, "masterauth": password}
        self.options |= {name.replace("_", "-"): value for name, value in options.items()}
        self.process: Process | None = None

    def start(self) -> RedisProcess:
        """Start or restart it; return when it answers."""
        words = [word for name, value in self.options.items() for word in (f"--{name}", value)]
        self.process = Process([self._program, *words], self.folder / "redis.log")
        wait_until(self._answers, "the start of redis-server")
        return self

    def command(self, *words: str) -> Any:
        """Send a command over the unix socket, authenticated; return the reply.

        :raises hiredis.ReplyError: if the reply is an error.
        """
        login = [("AUTH", self.password)] if self.password else []
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            connection.connect(self.path)
            reader = hiredis.Reader(encoding="utf-8", errors="surrogateescape")
            for each in (*login, words):
                connection.sendall(hiredis.pack_command(each))  # type: ignore[arg-type]
            for _ in range(len(login) + 1):
                while (answer := reader.gets()) is False:
                    data = connection.recv(65536)
                    if not data:
                        raise ConnectionError("redis-server closed the connection")
                    reader.feed(data)
        if isinstance(answer, hiredis.ReplyError):
            raise answer
        return answer

    def clients(self) -> list[str]:
        """Return its other connections, as shown by CLIENT LIST."""
        lines = str(self.command("CLIENT", "LIST", "TYPE", "normal")).splitlines()
        return [line for line in lines if "cmd=client|list" not in line]

    def role(self) -> str:
        """Return ``master`` or ``slave``; ``""`` while it changes, when it closes all connections."""
        try:
            return str(self.command("ROLE")[0])
        except ConnectionError:
            return ""

    def hang(self) -> None:
        """Suspend it; the kernel still accepts connections. Returns when it is suspended."""
        assert self.process is not None
        self._signal(signal.SIGSTOP)
        state = Path(f"/proc/{self.process.popen.pid}/stat")
        wait_until(lambda: state.read_text().rpartition(")")[2].split()[0] == "T", "redis-server standing still")

    def go_on(self) -> None:
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """Kill it (SIGKILL)."""
        if self.process:
            self.process.stop(signal.SIGKILL)

    def stop(self) -> None:
        """Stop it, even if it is suspended."""
        if self.process:
            self.process.stop(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        assert self.process is not None
        self.process.signal(number)

    def _answers(self) -> bool:
        assert self.process is not None
        if self.process.popen.poll() is not None:
            raise RuntimeError(f"redis-server ended: {self.process.output()}")
        try:
            return str(self.command("PING")) == "PONG"
        except (OSError, hiredis.ReplyError):
            return False


class SentinelGroup:
    """A master, replicas and three Sentinels, which consider a master down after half a second.

    :ivar replica: the first one.
    :ivar servers: of ``[Redis] sentinel_servers``.
    :param password: of master and replica.
    :param sentinel_password: of the Sentinels.
    :param authority: signs their certificates; all of them then use TLS.
    """

    name = "mail"

    def __init__(
        self,
        folder: Path,
        password: str = "",
        sentinel_password: str = "",
        authority: Authority | None = None,
        replicas: int = 1,
    ) -> None:
        self._folder = folder
        self.password = password
        self.sentinel_password = sentinel_password
        self.authority = authority
        tls = authority.issue("127.0.0.1") if authority else None
        # The files with which they authenticate each other.
        self._tls = {"tls-replication": "yes", "tls-ca-cert-file": str(authority.path)} if authority else {}
        self.master = RedisProcess(folder / "a", password, tls, **self._tls)
        of_master = {"replicaof": f"127.0.0.1 {self.master.port}", "repl_ping_replica_period": "1", **self._tls}
        self.replicas = [RedisProcess(folder / f"b{each}", password, tls, **of_master) for each in range(replicas)]
        self.replica = self.replicas[0]
        self.sentinels: list[Process] = []
        self.ports: list[int] = []

    @property
    def servers(self) -> str:
        return " ".join(f"127.0.0.1:{port}" for port in self.ports)

    def start(self, failover: bool = True) -> SentinelGroup:
        """Start all; return when the Sentinels answer.

        :param failover: also wait until the replica is synchronized and the Sentinels know each other (seconds).
        """
        self.master.options["repl-diskless-sync-delay"] = "0"
        self.master.start()
        for replica in self.replicas:
            replica.start()
        for number in range(3):
            self._sentinel(number)
        ready = self._ready if failover else self._answers
        if failover:
            wait_until(lambda: all(each.command("ROLE")[3] == "connected" for each in self.replicas), "replication")
        for port in self.ports:
            wait_until(partial(ready, port), "the Sentinels being ready")
        return self

    def stop(self) -> None:
        for sentinel in self.sentinels:
            sentinel.stop(signal.SIGKILL)
        for server in (self.master, *self.replicas):
            server.stop()

    def _sentinel(self, number: int) -> None:
        port = free_port()
        config = self._folder / f"sentinel-{number}.conf"
        login = f"sentinel auth-pass {self.name} {self.password}\n" if self.password else ""
        own = f"requirepass {self.sentinel_password}\n" if self.sentinel_password else ""
        config.write_text(
            f"{self._listening(port)}bind 127.0.0.1\nset-proc-title no\ndir {self._folder}\n{own}"
            f"sentinel monitor {self.name} 127.0.0.1 {self.master.port} 2\n{login}"
            f"sentinel down-after-milliseconds {self.name} 500\n"
            f"sentinel failover-timeout {self.name} 3000\n"
        )
        command = [program("redis-sentinel", "valkey-sentinel"), str(config)]
        self.sentinels.append(Process(command, self._folder / f"sentinel-{number}.log"))
        self.ports.append(port)

    def _listening(self, port: int) -> str:
        """Return the lines for the port in the configuration of a Sentinel."""
        if self.authority is None:
            return f"port {port}\n"
        options = {name: value for name, value in self.master.options.items() if name.startswith("tls-")}
        options |= {"port": "0", "tls-port": str(port)}
        return "".join(f"{name} {value}\n" for name, value in options.items())

    def command(self, port: int, *words: str) -> Any:
        """Send a command to a Sentinel, authenticated; return the reply, which may be an error.

        :raises OSError: if it does not respond.
        """
        login = [("AUTH", self.sentinel_password)] if self.sentinel_password else []
        with self._connect(port) as connection:
            reader = hiredis.Reader(encoding="utf-8")
            for each in (*login, words):
                connection.sendall(hiredis.pack_command(each))  # type: ignore[arg-type]
                while (answer := reader.gets()) is False:
                    reader.feed(connection.recv(65536))
        return answer

    def _connect(self, port: int) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", port), 1)
        if self.authority is None:
            return connection
        return ssl.create_default_context(cafile=str(self.authority.path)).wrap_socket(
            connection, server_hostname="127.0.0.1"
        )

    def _answers(self, port: int) -> bool:
        try:
            return bool(self.command(port, "PING") == "PONG")
        except OSError:
            return False

    def _ready(self, port: int) -> bool:
        try:
            answer = self.command(port, "SENTINEL", "MASTER", self.name)
        except OSError:
            return False
        state = dict(zip(answer[::2], answer[1::2], strict=True))
        return [state[each] for each in ("num-other-sentinels", "num-slaves", "flags")] == [
            "2",
            str(len(self.replicas)),
            "master",
        ]
