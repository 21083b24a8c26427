"""Which names a database can store, and in which spellings it may have stored one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from sqlalchemy import Connection

from chapps_tw.mail.addresses import normal_domain, normal_email, normal_name, unicode_domain

# An execution option of the engine: whether names that differ in letter case alone are one ([CHAPPS] fold_case).
FOLD_CASE: Final = "chapps_fold_case"

_NORMAL: Final[Mapping[str, Callable[[str, bool], str]]] = {
    "users": normal_name,
    "domains": lambda name, fold_case: normal_domain(name),
    "emails": normal_email,
}


def normal_of(connection: Connection, kind: str) -> Callable[[str], str]:
    """What gives the names of a kind their normal form. It returns ``""`` for what is no such name.

    :raises KeyError: for quotas, whose names are nothing but names.
    """
    normal, fold_case = _NORMAL[kind], bool(connection.get_execution_options().get(FOLD_CASE, True))
    return lambda name: normal(name, fold_case)


def storable(name: str, length: int) -> bool:
    """Whether a name could be in a column of so many characters: UTF-8 without NUL, not empty."""
    if not 0 < len(name) <= length or "\0" in name:
        return False
    return name.isascii() or not any("\ud800" <= character <= "\udfff" for character in name)


def domain_spellings(domain: str) -> list[str]:
    """How a normal domain name may have been stored: as A-labels or U-labels, and with a final dot."""
    return list(dict.fromkeys(f"{name}{dot}" for dot in ("", ".") for name in (domain, unicode_domain(domain))))


def name_spellings(name: str) -> list[str]:
    """The same for a normal address, or a normal login, which need not be one."""
    local, at, domain = name.rpartition("@")
    return [f"{local}@{spelling}" for spelling in domain_spellings(domain)] if at else [name]


def part_spellings(text: str) -> list[str]:
    """How a part of a domain name or of an address may have been stored, label by label.

    A label of which the text has only a part cannot be told in the other form.
    """
    local, at, domain = text.rpartition("@")
    labels = domain.split(".")
    encoded = [label if label.isascii() else normal_domain(label) or label for label in labels]
    decoded = [unicode_domain(label.lower()) if "xn--" in label.lower() else label for label in labels]
    return list(dict.fromkeys([text, *(f"{local}{at}{'.'.join(each)}" for each in (encoded, decoded))]))


def folded(spellings: list[str]) -> list[str]:
    """The spellings as SQL's ``lower()`` gives them.

    SQLite folds only ASCII, others all letters; a label in capitals or with a capital first letter is
    found on each.
    """
    cases = (case for text in spellings for case in (text, text.upper(), text.title()))
    lower = (folding for case in cases for folding in (case.lower(), _lower_ascii(case)))
    return list(dict.fromkeys(lower))


def _lower_ascii(text: str) -> str:
    return "".join(character.lower() if character.isascii() else character for character in text)
