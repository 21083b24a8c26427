"""main.cf and master.cf as text, or as ``postconf -n`` and ``postconf -M`` print them (postconf(5), master(5))."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from chapps_tw.postfix_check.words import WordError, in_braces, words

_PARAMETER: Final = re.compile(r"([A-Za-z0-9_]+)\s*=\s*(.*)", re.DOTALL)
_COLUMNS: Final = 8
_SMTPD: Final = "smtpd"
# Options of smtpd(8) that take a value.
_WITH_VALUE: Final = ("-n", "-t", "-i", "-s", "-m", "-z", "-u")


class SourceError(ValueError):
    """A file is not what it should be. The message names file, line and remedy."""


class Service(NamedTuple):
    """A service of master.cf.

    :ivar chroot: ``y``, ``n``, or ``-`` for the default.
    :ivar command: name of the program.
    :ivar overrides: parameters of ``-o``; empty for other programs than smtpd(8).
    """

    name: str
    type: str
    chroot: str
    command: str
    overrides: Mapping[str, str]

    @property
    def label(self) -> str:
        """Its name as in ``postconf -M``."""
        return f"{self.name}/{self.type}"

    @property
    def is_smtpd(self) -> bool:
        """Whether it accepts mail by SMTP."""
        return self.command == _SMTPD


class Source(NamedTuple):
    """The configuration of a Postfix.

    :ivar main: what main.cf sets.
    """

    main: Mapping[str, str]
    services: Sequence[Service]


def read_main(text: str) -> dict[str, str]:
    """Return the parameters that main.cf sets; the last one wins.

    :raises SourceError: for a line that is no parameter.
    """
    found = {}
    for number, line in _logical_lines(text):
        match = _PARAMETER.fullmatch(line)
        if not match:
            raise SourceError(f"main.cf, line {number}: must be 'name = value', not {line:.60}")
        found[match[1]] = match[2].strip()
    return found


def read_master(text: str) -> list[Service]:
    """Return the services of master.cf.

    :raises SourceError: for a line that is no service.
    """
    return [_service(number, line) for number, line in _logical_lines(text)]


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield each line with its number and its continuations, which begin with a space; without comments."""
    begin, parts = 0, list[str]()
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if not line[0].isspace() and parts:
            yield begin, " ".join(parts)
            parts = []
        begin = begin if parts else number
        parts.append(line.strip())
    if parts:
        yield begin, " ".join(parts)


def _service(number: int, line: str) -> Service:
    columns = line.split(None, _COLUMNS - 1)
    if len(columns) < _COLUMNS:
        raise SourceError(f"master.cf, line {number}: must have {_COLUMNS} columns (master(5)), not {line:.60}")
    command, _, arguments = columns[-1].partition(" ")
    try:
        overrides = dict(_overrides(words(arguments, " \t"))) if command == _SMTPD else {}
        return Service(columns[0], columns[1], columns[4], command, overrides)
    except WordError as error:
        raise SourceError(f"master.cf, line {number}: {error}") from None


def _overrides(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the parameters of ``-o name=value``, ``-oname=value`` and ``-o { name = value }``.

    :raises WordError: for an option that is none of these.
    """
    left = iter(arguments)
    for each in left:
        if each in _WITH_VALUE:
            next(left, "")
        elif each.startswith("-o"):
            text = in_braces(each[2:] or next(left, ""))
            match = _PARAMETER.fullmatch(text)
            if not match:
                raise WordError(f"-o needs name=value without spaces, or {{ name = value }}, not {text:.60}")
            yield match[1], match[2].strip()
