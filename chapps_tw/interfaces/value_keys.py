"""The keys of the values of the policy book that the live state caches."""

from __future__ import annotations

from typing import Final

from chapps_tw.interfaces.state import ValueKey

EXEMPTIONS: Final = ValueKey("exemptions", "all")
"""All exemptions."""


def user_plan(user: str) -> ValueKey:
    """Return the key of a :class:`~chapps_tw.interfaces.book.UserPlan`."""
    return ValueKey("user", user)


def domain_plan(domain: str) -> ValueKey:
    """Return the key of a :class:`~chapps_tw.interfaces.book.DomainPlan`."""
    return ValueKey("domain", domain)


def plan(quota: int) -> ValueKey:
    """Return the key of a :class:`~chapps_tw.interfaces.book.Plan`."""
    return ValueKey("quota", str(quota))


def plan_named(name: str) -> ValueKey:
    """Return the key of a plan that is found by its name."""
    return ValueKey("quota_named", name)


def sender(user: str, name: str) -> ValueKey:
    """Return the key of the verdict whether a user may send as a domain or an address."""
    return ValueKey("sda", user, name)


def senders_of_domain(domain: str) -> ValueKey:
    """Return the key of the version of all verdicts about a domain: with another version, they are outdated."""
    return ValueKey("sda_version", domain)


def check_spf(domain: str) -> ValueKey:
    """Return the key of the flag whether SPF results of mail to a domain have an effect."""
    return ValueKey("spf", domain, "check_spf")
