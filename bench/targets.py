"""The servers to measure. They run on one CPU; the load generator and Redis run on the other."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from bench.load import Sample, drive
from bench.mail import CHECKED, GREYLISTED, SENDERS, user_domain, user_name
from tests.support.paths import ROOT
from tests.support.servers.common import free_port, listening, wait_until
from tests.support.servers.dns import DnsServer, txt
from tests.support.servers.redis import RedisProcess
from tests.support.servers.service import Book, Options, Service

QUOTA = 1_000_000_000

# A user who is over the quota after the first message.
OVER_QUOTA = 10_000

_CPUS = sorted(os.sched_getaffinity(0))


class Measured(NamedTuple):
    """A sample with its costs.

    :ivar cost: CPU time of the server per request, in microseconds.
    :ivar store: CPU utilization of the store's process, 0 to 1.
    """

    sample: Sample
    cost: float
    store: float


class Target(NamedTuple):
    """A running server.

    :ivar ports: by listener.
    :ivar pid: of its process.
    :ivar store: pid of its store; ``None`` if the store is embedded.
    """

    name: str
    ports: Mapping[str, int]
    pid: int
    store: int | None = None

    def measure(
        self,
        listener: str,
        mail: Iterator[bytes],
        expected: bytes | tuple[bytes, ...],
        connections: int,
        seconds: float = float("inf"),
        count: float = float("inf"),
    ) -> Measured:
        """Put load on a listener: see :func:`bench.load.drive`."""
        before, stored = cpu_seconds(self.pid), cpu_seconds(self.store)
        sample = drive(self.ports[listener], mail, expected, connections, seconds, count)
        cost = (cpu_seconds(self.pid) - before) / sample.answers * 1e6
        return Measured(sample, cost, (cpu_seconds(self.store) - stored) / sample.elapsed)


def cpu_seconds(pid: int | None) -> float:
    """Return the CPU time of a process, including all threads."""
    if pid is None:
        return 0.0
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def take_load_cpu() -> None:
    """Keep this process and its children off the servers' CPU."""
    if len(_CPUS) > 1:
        os.sched_setaffinity(0, _CPUS[1:])


def _take_server_cpu() -> None:
    os.sched_setaffinity(0, _CPUS[:1])


def start_bare(stack: ExitStack, _: range) -> Target:
    """Start the bare Twisted server."""
    port = free_port()
    command = [sys.executable, "-m", "bench.bare", str(port)]
    process = subprocess.Popen(command, cwd=ROOT, preexec_fn=_take_server_cpu)
    stack.callback(process.wait)
    stack.callback(process.kill)
    wait_until(lambda: listening(port), "the bare server listening")
    return Target("bare", dict.fromkeys(("outbound", "greylisting", "inbound"), port), process.pid)


def start_embedded(stack: ExitStack, users: range) -> Target:
    """Start the service with embedded state."""
    service = start_service(stack, {}, users)
    return Target("embedded", service.ports, service.pid)


def start_on_redis(stack: ExitStack, users: range) -> Target:
    """Start the service with its own Redis."""
    redis = RedisProcess(Path(stack.enter_context(TemporaryDirectory(prefix="redis-")))).start()
    stack.callback(redis.stop)
    assert redis.process
    service = start_service(stack, {"Redis": {"server": "127.0.0.1", "port": redis.port}}, users)
    return Target("redis", service.ports, service.pid, redis.process.popen.pid)


def start_service(
    stack: ExitStack, options: Options, users: range, moods: Mapping[str, str | float] | None = None
) -> Service:
    """Start the service with its users, two domains, and a DNS server.

    :param moods: of the DNS server, see :class:`tests.support.servers.dns.DnsServer`.
    """
    dns = DnsServer({domain: [txt("v=spf1 ip4:10.0.0.0/8 -all")] for domain in SENDERS}, moods, ttl=3600)
    stack.callback(dns.stop)
    service = Service(options)
    stack.callback(service.remove)
    service.write_config({"SPFEnforcementPolicy": {"nameservers": f"127.0.0.1:{dns.port}"}})
    service.start(preexec_fn=_take_server_cpu).wait_ready()
    with Book(service.database) as book:
        for user in users:
            book.user(user_name(user), QUOTA, [user_domain(user)])
        book.user(user_name(OVER_QUOTA), 1, [user_domain(OVER_QUOTA)])
        book.domain(GREYLISTED, greylist=True)
        book.domain(CHECKED, check_spf=True)
    return service


STORES: dict[str, Callable[[ExitStack, range], Target]] = {"embedded": start_embedded, "redis": start_on_redis}


def installed_stores() -> list[str]:
    """Return the stores that can be measured on this machine."""
    return ["embedded", "redis"] if shutil.which("redis-server") else ["embedded"]
