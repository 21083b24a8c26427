"""A farm on one machine: two nodes, each with its Postfix, that share Redis with two replicas and three Sentinels, and
PostgreSQL. It is put under load by SMTP, while parts of it fail or are restarted."""

from __future__ import annotations

import socket
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from tests.support.servers.common import wait_until
from tests.support.servers.postfix import Postfix
from tests.support.servers.redis import RedisProcess, SentinelGroup
from tests.support.servers.service import Options, Service
from tests.support.servers.sql import PostgreSQL
from tests.support.smtp_load import ACCEPTED, SMTPLoad

USER, SENDER, QUOTA = "customer", "sales@customer.example", 1_000_000
# Temporary failures, after which a mail client or server sends again.
TEMPORARY = {450, 451}
SESSIONS = 4

# Hands a socket over as systemd does (sd_listen_fds(3)).
_ACTIVATE = """\
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="outbound")
os.execv(sys.argv[2], sys.argv[2:])
"""

Say = Callable[[str], object]


class WrongAnswer(Exception):
    """The farm did what it must not do. The message says what."""


def check(holds: bool, otherwise: str) -> None:
    if not holds:
        raise WrongAnswer(otherwise)


class Farm:
    """The farm. The first node has its port from a socket that stays open, the second one has two processes.

    :param say: called with a line about each step.
    """

    def __init__(self, stack: ExitStack, say: Say) -> None:
        self.say = say
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="farm-")))
        self.redis = SentinelGroup(folder / "redis", replicas=2)
        stack.callback(self.redis.stop)
        self.redis.start()
        database = PostgreSQL()
        stack.callback(database.stop)
        database.start()
        self.port = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        shared = self._shared(database)
        handed = {"OutboundQuotaPolicy": {"margin": 0, "listen": "systemd:domain=INET:name=outbound"}}
        self.first = Service({**shared, **handed, "CHAPPS": {"node": "first"}})
        self.second = Service({**shared, "CHAPPS": {"node": "second", "processes": 2}})
        for node in (self.first, self.second):
            stack.callback(node.remove)
        self.first.set_up_database()
        self.start_first()
        self.second.start().wait_ready()
        self._add_user()
        endpoints = f"inet:127.0.0.1:{self.port.getsockname()[1]}", self.second.endpoint()
        # Accepted messages that were not counted so far.
        self._before = 0
        self.postfixes = [_postfix(stack, endpoint) for endpoint in endpoints]

    def _shared(self, database: PostgreSQL) -> Options:
        name = database.new_database()
        book = {"db_host": "127.0.0.1", "db_port": database.port, "db_name": name, "db_pass": "secret"}
        return {
            "Redis": {"sentinel_servers": self.redis.servers, "sentinel_dataset": self.redis.name},
            "PolicyConfigAdapter": {"adapter": "postgresql", **book},
            "OutboundQuotaPolicy": {"margin": 0},
        }

    def start_first(self) -> None:
        """Start the first node as systemd does."""
        number = self.port.fileno()
        self.first.start(prefix=[sys.executable, "-c", _ACTIVATE, str(number)], pass_fds=[number])
        self.first.wait_ready()

    def _add_user(self) -> None:
        """Add who sends, through one node."""
        for path, body in (
            ("/quotas/", {"name": "plenty", "quota": QUOTA}),
            ("/domains/", {"name": SENDER.partition("@")[2]}),
            ("/users/", {"name": USER, "quota": 1, "domains": [1]}),
        ):
            status, answer = self.second.http(path, "POST", body)
            check(status == 201, f"{path} answers {status}: {answer}")

    def load(self) -> SMTPLoad:
        return SMTPLoad(self.postfixes, USER, SENDER, SESSIONS)

    # --- what is done to it ---

    def fail_over(self, load: SMTPLoad) -> None:
        """Have the Sentinels make a replica the master."""
        begin = time.monotonic()
        answer = self.redis.command(self.redis.ports[0], "SENTINEL", "FAILOVER", self.redis.name)
        check(answer == "OK", f"the Sentinel answers {answer}")
        promoted = self._promoted()
        now = time.monotonic()
        wait_until(lambda: len(promoted.clients()) >= 2 * 4, "the nodes using the new master")
        moved = time.monotonic() - now
        load.wait_accepted(time.monotonic())
        self._report("manual failover", load, begin)
        self.say(f"  a replica was the master after {now - begin:.1f} s, and used {moved:.1f} s later (promised: 3 s)")
        wait_until(lambda: self._replicas() == 2, "two replicas of the new master")

    def kill_master(self, load: SMTPLoad) -> None:
        """Kill the master without warning."""
        master = self._master()
        others = [each for each in self._servers() if each is not master]
        replicated = set.intersection(*map(_counted, others))
        master.kill()
        begin = time.monotonic()
        promoted = self._promoted()
        now = time.monotonic()
        load.wait_accepted(time.monotonic())
        counted = _counted(promoted)
        self._report("master killed", load, begin)
        self.say(f"  a replica was the master after {now - begin:.1f} s; promised: mail passes after 15 s")
        lost = len(replicated - counted)
        self.say(f"  {len(replicated)} messages were counted on all replicas before; {lost} of these counts are lost")
        check(not lost, f"{lost} replicated counts are lost")
        master.start()
        wait_until(lambda: self._replicas() == 2, "two replicas of the new master")

    def restart_node(self, load: SMTPLoad) -> None:
        """Restart the first node; its port stays open."""
        begin = time.monotonic()
        self.first.stop()
        self.start_first()
        load.wait_accepted(time.monotonic())
        self._report("node restarted", load, begin)
        check(load.codes(begin) == {ACCEPTED}, f"a client was told {load.codes(begin) - {ACCEPTED}}")

    def _uncounted(self, load: SMTPLoad) -> int:
        """Return how many of the accepted messages are not counted, give or take those under way."""
        accepted = load.accepted
        return max(0, accepted - QUOTA + self.second.remaining(USER))

    def _report(self, what: str, load: SMTPLoad, begin: float) -> None:
        told = [sent for sent in list(load.sent) if sent.end > begin]
        deferred = sum(sent.code != ACCEPTED for sent in told)
        slowest = max(sent.end - sent.begin for sent in told)
        self.say(
            f"{what}: {len(told)} messages, {deferred} of them deferred, the last one after "
            f"{load.last_refusal(begin):.1f} s; the slowest took {slowest:.1f} s"
        )
        uncounted = self._uncounted(load)
        lost = max(0, uncounted - self._before)
        self.say(f"  about {lost} accepted messages were counted by a master that is none any more")
        self._before = uncounted
        wrong = load.codes() - {ACCEPTED, *TEMPORARY}
        check(not wrong, f"a client was told {wrong}")

    # --- Redis ---

    def _servers(self) -> list[RedisProcess]:
        return [self.redis.master, *self.redis.replicas]

    def _master(self) -> RedisProcess:
        """Return the server that the Sentinels name."""
        port = int(self.redis.command(self.redis.ports[0], "SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.redis.name)[1])
        return next(each for each in self._servers() if each.port == port)

    def _promoted(self) -> RedisProcess:
        """Wait for another master; return it."""
        before = self._master()
        wait_until(lambda: self._master() is not before, "another master")
        promoted = self._master()
        wait_until(lambda: promoted.role() == "master", "its new role")
        return promoted

    def _replicas(self) -> int:
        try:
            replicas = self._master().command("ROLE")[2]
            return sum(str(offset) != "0" for _, _, offset in replicas)
        except OSError:
            return 0


def _counted(server: RedisProcess) -> set[str]:
    """Return which messages of the user a server has counted."""
    return set(server.command("HKEYS", f"chapps:oqp:{{{USER}}}:msg"))


def _postfix(stack: ExitStack, endpoint: str) -> Postfix:
    limits = {"smtpd_hard_error_limit": "1000000", "smtpd_soft_error_limit": "1000000"}
    postfix = Postfix({"END-OF-MESSAGE": [endpoint]}, parameters=limits)
    stack.callback(postfix.stop)
    return postfix


def run(say: Say, rounds: int = 1) -> None:
    """Start the farm, let it work, and do everything to it.

    :param rounds: how often.
    :raises WrongAnswer: if it does what it must not do.
    """
    with ExitStack() as stack:
        say("starting Redis with two replicas, three Sentinels, PostgreSQL, two nodes and two Postfixes")
        farm = Farm(stack, say)
        with farm.load() as load:
            wait_until(lambda: {sent.place for sent in list(load.sent)} == {0, 1}, "messages through both Postfixes")
            load.wait_accepted(time.monotonic())
            for _ in range(rounds):
                for step in (farm.fail_over, farm.kill_master, farm.restart_node):
                    step(load)
                    load.wait_accepted(time.monotonic())
        say(f"{len(load.sent)} messages, {load.accepted} of them accepted; no wrong answer")
