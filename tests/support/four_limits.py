"""Mail that four limits count at once: an hour and a day of the user, a pool of the domain, and one of everybody."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from tests.support.api_case import APITestCase
from tests.support.servers.common import free_port
from tests.support.servers.service import PATIENT, Options, Service

LISTENER: Final = "mail"
EVERYBODY: Final = "everybody"


class Amounts(NamedTuple):
    """How many recipients each limit allows."""

    hour: int
    day: int
    pool: int
    everybody: int


class Used(NamedTuple):
    """What the limits have counted.

    :ivar users: the hour and the day of each user.
    """

    users: dict[str, tuple[int, int]]
    pool: int
    everybody: int


class Customer(NamedTuple):
    """A domain, whose users have the same quota.

    :ivar limit: name of the ``[Limit NAME]`` that counts everybody who logs in with this domain.
    :ivar plan, hour: ids of the quota and of its limit of an hour.
    :ivar pool: id of the quota that the users share.
    """

    limit: str
    domain: str
    users: Sequence[str]
    plan: int
    hour: int
    pool: int


class FourLimitsTestCase(APITestCase):
    """All services are asked at one listener, which has the sender's rights, the quota, and the limits of everybody."""

    def run_listening(
        self,
        amounts: Mapping[str, Amounts],
        *options: Options,
        quota: Mapping[str, object] = MappingProxyType({}),
        set_up: bool = False,
    ) -> Service:
        """Return a service that is ready.

        :param amounts: of everybody with a login in ``NAME.example``, by name.
        :param quota: more options of the quota.
        :param set_up: create the tables on a database server first.
        """
        port = free_port()
        policies = "SenderDomainAuthPolicy OutboundQuotaPolicy RateLimitPolicy"
        own: Options = {
            "OutboundQuotaPolicy": {"margin": 0, **quota},
            "Listener mail": {"listen": f"tcp:{port}:interface=127.0.0.1", "policies": policies},
        }
        limits: Options = {
            f"Limit {name}": {
                "per": EVERYBODY,
                "amount": each.everybody,
                "window": "1d",
                "match": f"sasl_username:@{name}.example",
                "action": "refuse",
            }
            for name, each in amounts.items()
        }
        service = self.run_service(PATIENT, own, limits, *options, set_up=set_up)
        service.ports[LISTENER] = port
        return service

    def add(self, node: Service, name: str, users: int, amounts: Amounts) -> Customer:
        """Add users of a domain and their limits; return them."""
        domain = f"{name}.example"
        plan = self.create(node, "quotas", name=f"{name} plan", quota=amounts.day)
        hour = {"name": "hour", "amount": amounts.hour, "window": "1h"}
        answer = self.expect(201, node, "POST", f"/quotas/{plan}/limits/", hour)
        pool = self.create(node, "quotas", name=f"{name} pool", quota=amounts.pool)
        id = self.create(node, "domains", name=domain, pool_quota=pool)
        names = [f"user{number}@{domain}" for number in range(users)]
        for user in names:
            self.create(node, "users", name=user, quota=plan, domains=[id])
        return Customer(name, domain, names, plan, int(answer["response"]["id"]), pool)

    def used(self, node: Service, customer: Customer) -> Used:
        """Return what a node shows as counted."""
        users = {}
        for user in customer.users:
            limits = self.shown(node, f"/live/limits/{user}")["limits"]
            found = {each["name"]: each["used"] for each in limits if each["level"] == "user"}
            users[user] = (found["hour"], found[""])
        [pool] = self.shown(node, f"/live/pools/{customer.domain}")["limits"]
        everybody = self.shown(node, f"/live/rate-limits/{customer.limit}/{EVERYBODY}")
        return Used(users, pool["used"], everybody["used"])

    def shown(self, node: Service, path: str) -> Any:
        return self.expect(200, node, "GET", path)["response"]
