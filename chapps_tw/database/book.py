"""Lookups of the policies in the database."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from typing import TypeAlias, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from chapps_tw.database import lookups, plans, schema
from chapps_tw.database.batches import Batches, Results
from chapps_tw.database.breaker import Breaker, Run, always
from chapps_tw.database.coalescing import Coalescer
from chapps_tw.database.engine import ConnectionAborter
from chapps_tw.database.errors import clear_tracebacks, is_of_a_value, reason
from chapps_tw.database.models import MAX_INTEGER, MAX_QUOTA
from chapps_tw.database.text import storable
from chapps_tw.interfaces.book import BookUnavailable, DomainFlags, DomainPlan, Exemption, Plan, SenderGrant, UserPlan
from chapps_tw.mail.addresses import MAX_DOMAIN, MAX_EMAIL, MAX_USER
from chapps_tw.observe.timer import Timer, no_timer

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

_LookUp: TypeAlias = Callable[[Connection, Sequence[K]], Mapping[K, V]]
"""Looks up many keys in one transaction."""

_NEGATIVE = "A negative quota counts as 0: that of {name} is {number}"


class Book:
    """Answers policies from the database (:class:`~chapps_tw.interfaces.book.PolicyBook`).

    :param engine: a new engine of :func:`~chapps_tw.database.engine.make_engine`, not connected yet.
    :param reactor: for timers.
    :param run: calls a function in a thread, such as :meth:`~chapps_tw.database.threads.Threads.run`.
    :param size: number of connections of the engine.
    :param deadline: seconds until a lookup fails with :exc:`~chapps_tw.interfaces.book.BookUnavailable`.
    :param timer: times each lookup: ``plan``, ``exemptions``, ``senders``, ``flags``.
    :param now: returns epoch seconds.
    """

    _log = Logger()

    def __init__(
        self,
        engine: Engine,
        reactor: IReactorTime,
        run: Run,
        size: int = 8,
        deadline: float = 1.5,
        timer: Timer = no_timer,
        *,
        now: Callable[[], float],
    ) -> None:
        self._engine = engine
        self._now = now
        self._timer = timer
        self._deadline = deadline
        self._coalescer = Coalescer(reactor)
        self._user_plans: Batches[str, UserPlan] = Batches(reactor, self._query(self._read_user_plans))
        self._domain_plans: Batches[str, DomainPlan] = Batches(reactor, self._query(self._read_domain_plans))
        self._grants: Batches[lookups.Sender, SenderGrant] = Batches(reactor, self._query(lookups.grants))
        self._breaker = Breaker(reactor, run, self._probe, ConnectionAborter(engine).abort_all, size)
        self._remark = ""
        self._negative_logged = False

    @property
    def problem(self) -> str:
        """One sentence while the database is unavailable, else ``""``."""
        return self._breaker.problem

    async def stop(self) -> None:
        """Close all connections, and stop probing the database."""
        self._breaker.stop()
        self._engine.dispose()

    async def user_plan(self, user: str) -> UserPlan:
        """Return what applies to a user alone."""
        if not storable(user, MAX_USER):
            return plans.UNKNOWN_USER
        return await self._timed("plan", self._user_plans.look_up(user))

    async def domain_plan(self, domain: str) -> DomainPlan:
        """Return what applies to the users of a domain."""
        if not storable(domain, MAX_DOMAIN):
            return plans.UNKNOWN_DOMAIN
        return await self._timed("plan", self._domain_plans.look_up(domain))

    async def plan(self, quota: int) -> Plan | None:
        """Return a quota with its limits. A negative number in the table counts as 0; the first one is logged."""
        if not 0 < quota <= MAX_INTEGER:
            return None
        return self._not_negative(await self._look_up("plan", ("id", quota), partial(plans.plan, id=quota)))

    async def plan_named(self, name: str) -> Plan | None:
        """Return the quota with a name, as :meth:`plan` does. The name is compared exactly."""
        if not storable(name, MAX_QUOTA):
            return None
        return self._not_negative(await self._look_up("plan", ("name", name), partial(plans.plan_named, name=name)))

    def _not_negative(self, plan: Plan | None) -> Plan | None:
        if plan is None or plan.quota is None or plan.quota >= 0:
            return plan
        if not self._negative_logged:
            self._negative_logged = True
            self._log.warn(_NEGATIVE, number=plan.quota, name=plan.name)
        return plan._replace(quota=0)

    async def exemptions(self) -> tuple[Exemption, ...]:
        """Return all exemptions that are not over yet."""
        return await self._look_up("exemptions", (), partial(plans.exemptions, now=self._now()))

    async def senders_of(self, user: str, domain: str, email: str, base: str = "") -> SenderGrant:
        """Return whether a domain, an address, and the base address of a sub-address are linked to a user."""
        if not storable(user, MAX_USER):
            return lookups.UNKNOWN_SENDER
        domain = domain if storable(domain, MAX_DOMAIN) else ""
        email = email if storable(email, MAX_EMAIL) else ""
        base = base if storable(base, MAX_EMAIL) else ""
        return await self._timed("senders", self._grants.look_up(lookups.Sender(user, domain, email, base)))

    async def flags_of(self, domain: str) -> DomainFlags:
        """Return the flags of a recipient domain."""
        if not storable(domain, MAX_DOMAIN):
            return lookups.UNKNOWN_DOMAIN
        return await self._look_up("flags", (domain,), partial(lookups.flags_of, domain=domain))

    async def ping(self) -> None:
        """Return when the database answers. Logs if the schema has changed since the start."""
        remark = await self._coalescer.join("ping", lambda: self._breaker.call(self._probe, self._deadline))
        if remark and remark != self._remark:
            self._log.warn("{remark}", remark=remark)
        self._remark = remark

    def _look_up(self, operation: str, about: tuple[str | int, ...], work: Callable[[Connection], T]) -> Deferred[T]:
        def query() -> Deferred[T]:
            return self._call(operation, partial(self._read, work), self._deadline)

        return self._coalescer.join((operation, *about), query)

    def _call(
        self, operation: str, work: Callable[[], T], deadline: float, give_up: Callable[[], bool] = always
    ) -> Deferred[T]:
        """See :meth:`~chapps_tw.database.breaker.Breaker.call`. Calls that fail at once are not timed."""
        if self.problem:
            return self._breaker.call(work, deadline, give_up)
        return self._breaker.call(work, deadline, give_up).addBoth(self._timer(operation))

    def _timed(self, operation: str, found: Deferred[T]) -> Deferred[T]:
        return found if self.problem else found.addBoth(self._timer(operation))

    def _query(self, work: _LookUp[K, V]) -> Callable[[Sequence[K]], Deferred[Results[K, V]]]:
        """Return a function that looks up many keys."""
        return lambda keys: self._breaker.call(partial(self._read_many, work, keys), self._deadline)

    def _read_many(self, work: _LookUp[K, V], keys: Sequence[K]) -> Results[K, V]:
        """Look up many keys. If the database cannot compare one of them, each is looked up alone."""
        try:
            return self._read_these(work, keys)
        except DBAPIError as error:
            if len(keys) == 1 or not is_of_a_value(error):
                raise
            clear_tracebacks(error)
        found: dict[K, V | Exception] = {}
        for key in keys:
            try:
                found.update(self._read_these(work, [key]))
            except DBAPIError as error:
                if not is_of_a_value(error):
                    raise
                clear_tracebacks(error)
                found[key] = BookUnavailable(f"The database query failed: {reason(error)}")
        return found

    def _read_these(self, work: _LookUp[K, V], keys: Sequence[K]) -> Mapping[K, V]:
        return self._read(lambda connection: work(connection, keys))

    def _read_user_plans(self, connection: Connection, keys: Sequence[str]) -> dict[str, UserPlan]:
        return plans.user_plans(connection, keys, self._now())

    def _read_domain_plans(self, connection: Connection, keys: Sequence[str]) -> dict[str, DomainPlan]:
        return plans.domain_plans(connection, keys, self._now())

    def _read(self, work: Callable[[Connection], T]) -> T:
        with self._engine.connect() as connection:
            return work(connection)

    def _probe(self) -> str:
        return self._read(schema.remark)
