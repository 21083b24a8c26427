"""The servers to measure. They run on one CPU; the load generator, Redis and its proxy run on the other."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from bench.book import QUOTA, write_book
from bench.load import Sample, drive
from bench.mail import SENDERS
from bench.pipelines import ACCEPTED
from tests.support.guard import family
from tests.support.paths import ROOT
from tests.support.servers.common import free_port, listening, wait_until
from tests.support.servers.dns import DnsServer, txt
from tests.support.servers.redis import RedisProcess
from tests.support.servers.service import PATIENT, Options, Service
from tests.support.servers.sql import PostgreSQL

# The policies of each listener.
LISTENERS = {
    "outbound": "SenderDomainAuthPolicy OutboundQuotaPolicy",
    "limits": "SenderDomainAuthPolicy OutboundQuotaPolicy RateLimitPolicy",
    "greylisting": "GreylistingPolicy",
    "inbound": "SPFEnforcementPolicy GreylistingPolicy",
}
_EVERYBODY = {"per": "everybody", "amount": QUOTA, "window": "1h"}

CPUS = sorted(os.sched_getaffinity(0))


class Measured(NamedTuple):
    """A sample with its costs.

    :ivar cost: CPU time of the server per request, in microseconds, that of all its processes.
    :ivar store: CPU utilization of the store's process, 0 to 1.
    :ivar memory: resident memory of the server, in bytes.
    """

    sample: Sample
    cost: float
    store: float
    memory: int


class Target(NamedTuple):
    """A running server.

    :ivar ports: by listener.
    :ivar pid: of its process, which may have started others.
    :ivar store: pid of its store; ``None`` if the store is embedded.
    :ivar only: prefix of its only answer; empty if it decides.
    """

    name: str
    ports: Mapping[str, int]
    pid: int
    store: int | None = None
    only: bytes = b""

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
        processes = family([self.pid])
        before, stored = sum(map(cpu_seconds, processes)), cpu_seconds(self.store)
        sample = drive(self.ports[listener], mail, expected, connections, seconds, count)
        cost = (sum(map(cpu_seconds, processes)) - before) / sample.answers * 1e6
        busy = (cpu_seconds(self.store) - stored) / sample.elapsed
        return Measured(sample, cost, busy, sum(map(resident_bytes, processes)))


def cpu_seconds(pid: int | None) -> float:
    """Return the CPU time of a process, including all threads."""
    if pid is None:
        return 0.0
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process."""
    pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGESIZE")


def take_load_cpu() -> None:
    """Keep this process and its children off the servers' CPU."""
    if len(CPUS) > 1:
        os.sched_setaffinity(0, CPUS[1:])


def _take_server_cpu() -> None:
    os.sched_setaffinity(0, CPUS[:1])


def take_all_cpus() -> None:
    """Let this process and its children run on every CPU."""
    os.sched_setaffinity(0, CPUS)


def start_bare(stack: ExitStack) -> Target:
    """Start the bare Twisted server."""
    port = free_port()
    pid = _start_module(stack, port, "bench.bare", str(port), prepare=_take_server_cpu)
    return Target("bare", dict.fromkeys(LISTENERS, port), pid, only=ACCEPTED)


def start_embedded(stack: ExitStack, users: Sequence[int], history: bool = False) -> Target:
    """Start the service with embedded state."""
    service = start_service(stack, {}, users, history=history)
    return Target("embedded, history" if history else "embedded", service.ports, service.pid)


def start_on_redis(stack: ExitStack, users: Sequence[int]) -> Target:
    """Start the service with its own Redis."""
    redis, store = _start_redis(stack)
    return _start_on(stack, "redis", redis, store, users)


def start_on_postgresql(stack: ExitStack, users: Sequence[int], history: bool = False) -> Target:
    """Start the service with embedded state, and its book and history in a PostgreSQL of its own."""
    server = PostgreSQL()
    stack.callback(server.stop)
    server.start()
    name = server.new_database()
    where = {"adapter": "postgresql", "db_host": "127.0.0.1", "db_port": server.port, "db_name": name}
    options: Options = {"PolicyConfigAdapter": {**where, "db_pass": "secret"}}
    url = f"postgresql+psycopg://chapps:secret@127.0.0.1:{server.port}/{name}"
    service = start_service(stack, options, users, history=history, database=url)
    return Target("PostgreSQL, history" if history else "PostgreSQL", service.ports, service.pid)


def start_processes(stack: ExitStack, users: Sequence[int], processes: int) -> Target:
    """Start the service with its own Redis, and several processes on all CPUs."""
    redis, store = _start_redis(stack)
    options: Options = {
        "CHAPPS": {**PATIENT["CHAPPS"], "processes": processes}, "Redis": {"server": "127.0.0.1", "port": redis}
    }  # fmt: skip
    service = start_service(stack, options, users, prepare=take_all_cpus)
    return Target("processes", service.ports, service.pid, store)


def start_on_far_redis(stack: ExitStack, users: Sequence[int], milliseconds: float) -> Target:
    """Start the service with its own Redis behind a proxy.

    :param milliseconds: that the proxy adds to a round trip.
    """
    redis, store = _start_redis(stack)
    port = free_port()
    _start_module(stack, port, "bench.delay", str(port), str(redis), str(milliseconds))
    return _start_on(stack, f"redis + {milliseconds:g} ms", port, store, users)


def _start_on(stack: ExitStack, name: str, port: int, store: int, users: Sequence[int]) -> Target:
    service = start_service(stack, {"Redis": {"server": "127.0.0.1", "port": port}}, users)
    return Target(name, service.ports, service.pid, store)


def _start_redis(stack: ExitStack) -> tuple[int, int]:
    """Start a Redis; return its port and its pid."""
    redis = RedisProcess(Path(stack.enter_context(TemporaryDirectory(prefix="redis-")))).start()
    stack.callback(redis.stop)
    assert redis.process
    return redis.port, redis.process.popen.pid


def _start_module(
    stack: ExitStack, port: int, module: str, *arguments: str, prepare: Callable[[], None] | None = None
) -> int:
    """Run a module of the benchmark until the end; return its pid when it listens.

    :param prepare: called in the new process.
    """
    process = subprocess.Popen([sys.executable, "-m", module, *arguments], cwd=ROOT, preexec_fn=prepare)
    stack.callback(process.wait)
    stack.callback(process.kill)
    wait_until(lambda: listening(port), f"{module} listening")
    return process.pid


def start_service(
    stack: ExitStack,
    options: Options,
    users: Sequence[int],
    moods: Mapping[str, str | float] | None = None,
    history: bool = False,
    prepare: Callable[[], None] = _take_server_cpu,
    database: str = "",
) -> Service:
    """Start the service with its listeners, its book, and a DNS server.

    :param users: numbers of users of the book, see :func:`bench.book.write_book`.
    :param moods: of the DNS server, see :class:`tests.support.servers.dns.DnsServer`.
    :param history: whether decisions are kept.
    :param prepare: called in the new process.
    :param database: URL of the book, if the options name a server.
    """
    dns = DnsServer({domain: [txt("v=spf1 ip4:10.0.0.0/8 -all")] for domain in SENDERS}, moods, ttl=3600)
    stack.callback(dns.stop)
    service = Service(PATIENT)
    stack.callback(service.remove)
    service.write_config(options)
    service.write_config({"SPFEnforcementPolicy": {"nameservers": f"127.0.0.1:{dns.port}"}})
    for name, policies in LISTENERS.items():
        listen = f"tcp:{service.ports[name]}:interface=127.0.0.1"
        service.write_config({f"Listener {name}": {"listen": listen, "policies": policies}})
    service.write_config({"Limit everybody": _EVERYBODY})
    # Measured in a table of its own.
    service.write_config({"History": {"record": "all" if history else "none"}})
    if database:
        service.set_up_database()
    service.start(preexec_fn=prepare).wait_ready()
    write_book(database or service.database, users)
    return service


STORES: dict[str, Callable[[ExitStack, Sequence[int]], Target]] = {
    "embedded": start_embedded,
    "redis": start_on_redis,
}


def installed_stores() -> list[str]:
    """Return the stores that can be measured on this machine."""
    return ["embedded", "redis"] if shutil.which("redis-server") else ["embedded"]
