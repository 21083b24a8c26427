"""``[Limit NAME]`` sections compiled for requests: which one applies, and what it counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import ceil
from typing import TypeAlias

from chapps_tw.config.limits import ACTIONS, Condition, RateLimit
from chapps_tw.config.settings import Settings
from chapps_tw.interfaces.state import Account, Charge, Window
from chapps_tw.mail.addresses import MAX_EMAIL, normal_domain, normal_name
from chapps_tw.mail.decision import stops
from chapps_tw.mail.memo import Memoized
from chapps_tw.mail.network import client_address
from chapps_tw.mail.request import PolicyRequest
from chapps_tw.outbound import AuthenticationFailureException, OutboundPPR, search_path
from chapps_tw.policies.charging import amount_of
from chapps_tw.policies.inbound import cached_client_network, mail_address

# Size of the cache of addresses, in bytes.
_CACHE_BYTES = 4 << 20

# What differs between the requests about one message.
_VARYING = frozenset(("recipient", "recipient_count", "size", "protocol_state", "queue_id"))

EVERYBODY = "everybody"

Predicate: TypeAlias = Callable[[PolicyRequest], bool]


class Rule:
    """A limit, ready to be applied.

    :ivar settles: whether it applies to all requests about a message or to none, so that a later one settles the cost.
    :ivar advisory: whether it cannot stop the mail.
    :ivar warn_from: use from which on the limit is near.
    :ivar attributes: of a request that decide whether it applies, and in which account it counts.
    """

    def __init__(self, limit: RateLimit, settings: Settings) -> None:
        self.limit = limit
        self.scope = f"limit:{limit.name}"
        self.settles = not limit.per.startswith("recipient") and _VARYING.isdisjoint(
            condition.attribute for condition in limit.match
        )
        self.advisory = limit.mode == "shadow" or not stops(ACTIONS.get(limit.action, limit.action))
        self.warn_from = max(1, ceil(limit.amount * limit.warn_at / 100))
        self._space, self._prefix = f"limit.{limit.unit}", f"{limit.name}:"
        self._unit, self._amount, self._window = limit.unit, limit.amount, float(limit.window.seconds)
        self._predicates = predicates_of(limit.match)
        self._source = _source_of(limit.per)
        self.attributes = (*_attributes_of(limit.per, settings), *[each.attribute for each in limit.match])
        self._normal = _normal_of(limit.per, settings)

    def charge(self, request: OutboundPPR, stage: str) -> Charge | None:
        """Return what a request costs; ``None`` if the limit does not apply, or the request does not tell.

        :param stage: its ``protocol_state``, one of :data:`~chapps_tw.policies.charging.STAGES`.
        """
        for holds in self._predicates:
            if not holds(request):
                return None
        text = self._source(request)
        what = text and self._normal(text)[:MAX_EMAIL]
        amount = amount_of(self._unit, request, stage) if what else None
        return None if amount is None else self.charge_of(what, amount)

    def charge_of(self, what: str, amount: int) -> Charge:
        """Return the charge of an amount. ``what`` is in normal form."""
        account = Account(self._space, self._prefix + what)
        return Charge(account, self._unit, amount, self._amount, self._window)

    def window(self, what: str) -> Window:
        """Return the window of what is counted, which is in normal form."""
        return Window(Account(self._space, self._prefix + what), self._unit, self._window)

    def what_of(self, charge: Charge) -> str:
        """Return what a charge counts, in normal form."""
        return charge.account.name[len(self._prefix) :]

    def what(self, text: str) -> str:
        """Return the normal form of what is counted; ``""`` if the limit counts no such thing."""
        return self._normal(text)[:MAX_EMAIL]


def rules_of(settings: Settings) -> list[Rule]:
    """Return the limits that ``RateLimitPolicy`` applies, in the order of the file."""
    named = settings.rlp.limits
    return [Rule(limit, settings) for limit in settings.limits if not named or limit.name in named]


def _source_of(per: str) -> Callable[[OutboundPPR], str]:
    """Return the function that takes what is counted from a request; ``""`` if it has none."""
    if per == "user":
        return _user
    if per == EVERYBODY:
        return lambda _: EVERYBODY
    attribute = _attribute_of(per)
    if per.endswith("_domain"):
        # Else the local part of an address without a domain would be one.
        return lambda request: request.get(attribute).rpartition("@")[2] if "@" in request.get(attribute) else ""
    return lambda request: request.get(attribute)


def _attribute_of(per: str) -> str:
    names = {"client": "client_address", "client_network": "client_address", "helo": "helo_name"}
    return names.get(per, per.removesuffix("_domain"))


def _attributes_of(per: str, settings: Settings) -> tuple[str, ...]:
    """Return the attributes that tell what is counted."""
    if per == "user":
        return search_path(settings)
    return () if per == EVERYBODY else (_attribute_of(per),)


def _user(request: OutboundPPR) -> str:
    try:
        return request.user
    except (AuthenticationFailureException, ValueError):
        return ""


def _normal_of(per: str, settings: Settings) -> Callable[[str], str]:
    if per == "user":
        return partial(normal_name, fold_case=settings.chapps.fold_case)
    if per == EVERYBODY:
        return lambda _: EVERYBODY
    if per == "client":
        address = cached_client_network(32, 128)
        return lambda text: address(text).partition("/")[0]
    if per == "client_network":
        return cached_client_network(settings.grl.ipv4_prefix, settings.grl.ipv6_prefix)
    if per == "helo":
        return _name
    return normal_domain if per.endswith("_domain") else mail_address


def _name(text: str) -> str:
    return mail_address(text).removesuffix(".")


def predicates_of(conditions: Sequence[Condition]) -> tuple[Predicate, ...]:
    """Return the predicates that must hold for a request: one for each attribute.

    An attribute must fulfil one of its conditions, if it has any that are not negated, and none of the negated ones.
    """
    found = []
    for attribute in dict.fromkeys(condition.attribute for condition in conditions):
        about = [condition for condition in conditions if condition.attribute == attribute]
        wanted = [condition for condition in about if not condition.negated]
        excluded = [condition for condition in about if condition.negated]
        found += [_predicate(attribute, wanted)] if wanted else []
        found += [_negation(_predicate(attribute, excluded))] if excluded else []
    return tuple(found)


def _negation(predicate: Predicate) -> Predicate:
    return lambda request: not predicate(request)


def _predicate(attribute: str, conditions: Sequence[Condition]) -> Predicate:
    """Return the predicate whether an attribute fulfils one of the conditions."""
    networks = tuple(condition.network for condition in conditions if condition.network)
    if networks:
        empty = any(not condition.network for condition in conditions)

        def is_inside(request: PolicyRequest) -> bool:
            address = _addresses[request.get(attribute)]
            return any(address in network for network in networks) if address else empty and not request.get(attribute)

        return is_inside
    exact, ends = _compiled([condition.pattern for condition in conditions])

    def is_like(request: PolicyRequest) -> bool:
        value = normal_name(request.get(attribute)).removesuffix(".")
        return value in exact or value.endswith(ends)

    return is_like


_addresses = Memoized(client_address, _CACHE_BYTES)


def _compiled(patterns: Sequence[str]) -> tuple[frozenset[str], tuple[str, ...]]:
    """Return the values that patterns allow, and the ends of values that they allow."""
    exact, ends = [], []
    for pattern in patterns:
        if pattern.startswith("."):
            exact.append(pattern[1:])
            ends += [pattern, f"@{pattern[1:]}"]
        elif pattern.startswith("@"):
            ends.append(pattern)
        else:
            exact.append(pattern)
    return frozenset(exact), tuple(ends)
