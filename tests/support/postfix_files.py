"""Configurations of Postfix as text: a good one, and changes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from chapps_tw.config.settings import Settings
from chapps_tw.policies.registry import BUILT_IN
from chapps_tw.policies.stages import Need
from chapps_tw.postfix_check.check import Report, check
from chapps_tw.postfix_check.listeners import listeners_of
from chapps_tw.postfix_check.source import Source, read_main, read_master

OUTBOUND: Final = "check_policy_service { inet:127.0.0.1:10225, timeout=5s, { default_action = 451 4.3.0 Try later } }"
INBOUND: Final = "check_policy_service { inet:127.0.0.1:10227, timeout=25s, default_action=DUNNO }"

MAIN: Final = {
    "compatibility_level": "3.6",
    "smtpd_recipient_restrictions": f"reject_unauth_destination, {INBOUND}",
}
SUBMISSION: Final = {
    "smtpd_sasl_auth_enable": "yes",
    "smtpd_relay_restrictions": "permit_sasl_authenticated, reject",
    "smtpd_recipient_restrictions": "",
    "smtpd_data_restrictions": OUTBOUND,
}


def main_cf(**changes: str | None) -> str:
    """Return a good main.cf with changes; ``None`` removes a parameter."""
    values = {**MAIN, **changes}
    return "".join(f"{name} = {value}\n" for name, value in values.items() if value is not None)


def service(name: str, overrides: Mapping[str, str | None], chroot: str = "n") -> str:
    """Return an SMTP server of master.cf; an override of ``None`` is left out."""
    options = "".join(f"  -o {{ {name} = {value} }}\n" for name, value in overrides.items() if value is not None)
    return f"{name} inet n - {chroot} - - smtpd\n{options}"


def master_cf(smtp: Mapping[str, str | None] | None = None, **changes: str | None) -> str:
    """Return a good master.cf with changes of its services.

    :param smtp: overrides of the service on port 25.
    :param changes: of the submission service.
    """
    return service("smtp", smtp or {}) + service("submission", {**SUBMISSION, **changes})


def report(
    main: str, master: str, settings: Settings | None = None, running: Sequence[Mapping[str, object]] | None = None,
    needs: Sequence[Need] = (),
) -> Report:  # fmt: skip
    """Return what is found about the text of main.cf and master.cf."""
    source = Source(read_main(main), read_master(master))
    return check(source, listeners_of(settings or Settings(), BUILT_IN, needs), running)


def found(*arguments: object, **more: object) -> list[tuple[str, str, str]]:
    """Return severity, code and place of each finding. Parameters as for :func:`report`."""
    findings = report(*arguments, **more).findings  # type: ignore[arg-type]
    return [(str(each.severity), each.code, each.where) for each in findings]
