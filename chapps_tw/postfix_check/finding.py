"""What is found."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Severity(StrEnum):
    """How bad it is.

    An error: mail is refused, accepted or not judged against the intention. A warning: it is when something else
    happens, or it costs time. A note: it is as it should be, or may be, and worth knowing.
    """

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


class Finding(NamedTuple):
    """Something about the configuration.

    :ivar code: for programs: stays the same when texts change.
    :ivar file: main.cf, master.cf or chapps.ini.
    :ivar service: the service of master.cf, such as ``submission/inet``; empty for all.
    :ivar parameter: the parameter, or the option of chapps.ini.
    :ivar problem: what is wrong.
    :ivar effect: what happens to mail because of it.
    :ivar remedy: what to do, with the line to write; empty for a note that needs none.
    """

    severity: Severity
    code: str
    file: str
    service: str
    parameter: str
    problem: str
    effect: str
    remedy: str = ""

    @property
    def where(self) -> str:
        """File, service and parameter."""
        return ", ".join(part for part in (self.file, self.service, self.parameter) if part)
