"""Which names a database can store, and the spellings in which it may have stored them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from sqlalchemy import Connection, Engine

from chapps_tw.mail.addresses import normal_domain, normal_email, normal_name, unicode_domain

# An execution option of the engine: whether names are case-insensitive ([CHAPPS] fold_case).
FOLD_CASE: Final = "chapps_fold_case"

_NORMAL: Final[Mapping[str, Callable[[str, bool], str]]] = {
    "users": normal_name,
    "domains": lambda name, fold_case: normal_domain(name),
    "emails": normal_email,
}


def normal_of(connection: Connection, kind: str) -> Callable[[str], str]:
    """Return the function that normalizes names of a kind. It returns ``""`` for an invalid name.

    :raises KeyError: for quotas, whose names have no normal form.
    """
    return normalizer(kind, folds_case(connection))


def folds_case(connection: Connection | Engine) -> bool:
    """Return whether names are case-insensitive."""
    return bool(connection.get_execution_options().get(FOLD_CASE, True))


def normalizer(kind: str, fold_case: bool) -> Callable[[str], str]:
    """Return the function that normalizes names of a kind, as :func:`normal_of` does."""
    normal = _NORMAL[kind]
    return lambda name: normal(name, fold_case)


def storable(name: str, length: int) -> bool:
    """Return whether a name fits a column of ``length`` characters: UTF-8 without NUL, not empty."""
    if not 0 < len(name) <= length or "\0" in name:
        return False
    return name.isascii() or not any("\ud800" <= character <= "\udfff" for character in name)


def domain_spellings(domain: str) -> list[str]:
    """Return how a normal domain name may be stored: as A-labels or U-labels, with or without a final dot."""
    return list(dict.fromkeys(f"{name}{dot}" for dot in ("", ".") for name in (domain, unicode_domain(domain))))


def name_spellings(name: str) -> list[str]:
    """Return how a normal address, or a normal login, which need not be an address, may be stored."""
    local, at, domain = name.rpartition("@")
    return [f"{local}@{spelling}" for spelling in domain_spellings(domain)] if at else [name]


def part_spellings(text: str) -> list[str]:
    """Return how a part of a domain name or an address may be stored, label by label.

    An incomplete label cannot be converted to the other form.
    """
    local, at, domain = text.rpartition("@")
    labels = domain.split(".")
    encoded = [label if label.isascii() else normal_domain(label) or label for label in labels]
    decoded = [unicode_domain(label.lower()) if "xn--" in label.lower() else label for label in labels]
    return list(dict.fromkeys([text, *(f"{local}{at}{'.'.join(each)}" for each in (encoded, decoded))]))


def folded(spellings: list[str]) -> list[str]:
    """Return the possible results of SQL's ``lower()`` for the spellings.

    SQLite folds only ASCII letters, the others all letters. Names in capitals, or with a capital first letter, are
    found on all of them.
    """
    cases = (case for text in spellings for case in (text, text.upper(), text.title()))
    lower = (folding for case in cases for folding in (case.lower(), _lower_ascii(case)))
    return list(dict.fromkeys(lower))


def _lower_ascii(text: str) -> str:
    return "".join(character.lower() if character.isascii() else character for character in text)
