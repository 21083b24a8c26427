"""What each SMTP server asks: in which lists, in which order, and about which clients.

The lists and their order: https://www.postfix.org/SMTPD_ACCESS_README.html. A client that is permitted skips the rest
of a list, but not the lists that follow; one that is refused never gets to them.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from typing import Final, NamedTuple

from chapps_tw.postfix_check.listeners import OurListener
from chapps_tw.postfix_check.parameters import Parameters
from chapps_tw.postfix_check.restrictions import CHECK, Call, Restriction, classes_of, read_call, read_list
from chapps_tw.postfix_check.source import Service, Source
from chapps_tw.postfix_check.words import WordError

CLIENT, HELO, SENDER = "smtpd_client_restrictions", "smtpd_helo_restrictions", "smtpd_sender_restrictions"
RELAY, RECIPIENT = "smtpd_relay_restrictions", "smtpd_recipient_restrictions"
DATA, END = "smtpd_data_restrictions", "smtpd_end_of_data_restrictions"
ETRN: Final = "smtpd_etrn_restrictions"
EARLY: Final = {CLIENT: "CONNECT", HELO: "EHLO", SENDER: "MAIL"}
LISTS: Final = (CLIENT, HELO, SENDER, RELAY, RECIPIENT, DATA, END, ETRN)

_GUARDS: Final = ("reject_unauth_destination", "defer_unauth_destination", "reject", "defer")


class Client(Enum):
    """A kind of SMTP client."""

    STRANGER = "clients from the world"
    NETWORK = "clients in mynetworks"
    LOGIN = "logged-in users"


# What lets whom pass the rest of a list.
_PERMITS: Final[Mapping[str, frozenset[Client]]] = {
    "permit": frozenset(Client),
    "ok": frozenset(Client),
    "permit_sasl_authenticated": frozenset((Client.LOGIN,)),
    "permit_mynetworks": frozenset((Client.NETWORK,)),
    "permit_auth_destination": frozenset((Client.STRANGER,)),
}
_REFUSES: Final = ("reject", "defer")
ENDS: Final = ("permit", "ok", *_REFUSES)
"""Restrictions that decide about all clients."""


def guards(each: Restriction) -> bool:
    """Return whether a restriction of the recipient or relay list keeps strangers from relaying."""
    return each.name in _GUARDS and not each.is_warning


class Site(NamedTuple):
    """A place in a list where a policy service is asked.

    :ivar list: the parameter.
    :ivar stage: the protocol state of the request.
    :ivar ahead: the restrictions ahead of it in its list.
    :ivar listener: ours that is asked; ``None`` if it is none of ours.
    :ivar reached_by: the clients that get there.
    """

    service: Service
    list: str
    stage: str
    call: Call
    restriction: Restriction
    ahead: Sequence[Restriction]
    listener: OurListener | None
    reached_by: frozenset[Client]

    @property
    def is_guarded(self) -> bool:
        """Whether strangers who want to relay are refused ahead of it in its list."""
        return any(guards(each) for each in self.ahead)


class Server(NamedTuple):
    """An SMTP server: a service of master.cf with its lists.

    :ivar lists: the restrictions of each list, in the order in which Postfix evaluates the lists.
    :ivar has_login: whether users can log in.
    :ivar passing: the clients that no list refuses as such.
    :ivar unread: restriction classes with policy services that only tables might name, which are not read.
    :ivar broken: lists that cannot be read, and why.
    """

    service: Service
    parameters: Parameters
    lists: Mapping[str, Sequence[Restriction]]
    sites: Sequence[Site]
    has_login: bool
    passing: frozenset[Client]
    unread: Mapping[str, Sequence[Call]]
    broken: Mapping[str, str]

    def stages(self, listener: OurListener) -> set[str]:
        """Return the stages at which it asks a listener about some client."""
        return {site.stage for site in self.sites if site.listener == listener and site.reached_by}

    def asks(self, listener: OurListener) -> bool:
        """Return whether it asks a listener about some client."""
        return bool(self.stages(listener))


def servers_of(source: Source, listeners: Sequence[OurListener]) -> list[Server]:
    """Return the SMTP servers of a Postfix."""
    services = [service for service in source.services if service.is_smtpd]
    return [server_of(service, Parameters(source, service), listeners) for service in services]


def server_of(service: Service, parameters: Parameters, listeners: Sequence[OurListener]) -> Server:
    """Return one SMTP server."""
    lists, broken = _lists(parameters)
    has_login = parameters.is_on("smtpd_sasl_auth_enable")
    kinds = [kind for kind in Client if has_login or kind is not Client.LOGIN]
    reached = {kind: set(_reached(lists, kind)) for kind in kinds}
    passing = frozenset(kind for kind in kinds if not any(_is_refused(kind, each) for each in lists.values()))
    sites = []
    for name, each in lists.items():
        for place, restriction in enumerate(each):
            if restriction.name == CHECK:
                call = read_call(restriction.argument)
                by = frozenset(kind for kind in kinds if (name, place) in reached[kind])
                listener = find(call.endpoint, service, parameters, listeners)
                stage = stage_of(name, parameters)
                sites.append(Site(service, name, stage, call, restriction, each[:place], listener, by))
    return Server(service, parameters, lists, sites, has_login, passing, _unread(parameters, lists), broken)


def _lists(parameters: Parameters) -> tuple[dict[str, list[Restriction]], dict[str, str]]:
    """Return the restrictions of each list, and what is wrong with those that cannot be read."""
    lists, broken = {}, {}
    for name in _order(parameters):
        try:
            lists[name] = read_list(parameters[name], parameters)
        except WordError as error:
            lists[name], broken[name] = [], str(error)
    return lists, broken


def _order(parameters: Parameters) -> list[str]:
    both = [RELAY, RECIPIENT] if parameters.is_on("smtpd_relay_before_recipient_restrictions") else [RECIPIENT, RELAY]
    return [*EARLY, *both, DATA, END, ETRN]


def stage_of(list: str, parameters: Parameters) -> str:
    """Return the protocol state of the requests that a list makes.

    With ``smtpd_delay_reject``, the early lists wait for RCPT TO.
    """
    if list in EARLY and not parameters.is_on("smtpd_delay_reject"):
        return EARLY[list]
    return {DATA: "DATA", END: "END-OF-MESSAGE", ETRN: "ETRN"}.get(list, "RCPT")


def _reached(lists: Mapping[str, Sequence[Restriction]], kind: Client) -> Iterator[tuple[str, int]]:
    """Yield list and place of the restrictions that a kind of client gets to."""
    for name, restrictions in lists.items():
        met = met_by(kind, restrictions)
        yield from ((name, place) for place in range(len(met)))
        if _is_refused(kind, restrictions) and name != ETRN:
            return


def met_by(kind: Client, restrictions: Sequence[Restriction]) -> Sequence[Restriction]:
    """Return the restrictions of a list that a kind of client gets to: up to the one that decides."""
    for place, each in enumerate(restrictions):
        if kind in _PERMITS.get(each.name, ()) or _refuses(each):
            return restrictions[: place + 1]
    return restrictions


def _is_refused(kind: Client, restrictions: Sequence[Restriction]) -> bool:
    met = met_by(kind, restrictions)
    return bool(met) and _refuses(met[-1])


def _refuses(each: Restriction) -> bool:
    return each.name in _REFUSES and not each.is_warning


def _unread(parameters: Parameters, lists: Mapping[str, Sequence[Restriction]]) -> dict[str, list[Call]]:
    if not any(each.is_opaque for every in lists.values() for each in every):
        return {}
    used = {name for every in lists.values() for each in every for name in each.via}
    found = {}
    for name in classes_of(parameters):
        calls = [read_call(each.argument) for each in read_list(parameters[name], parameters) if each.name == CHECK]
        if calls and name not in used:
            found[name] = calls
    return found


def find(
    endpoint: str, service: Service, parameters: Parameters, listeners: Sequence[OurListener]
) -> OurListener | None:
    """Return the listener that answers at an endpoint; ``None`` if none of ours does."""
    kind, _, place = endpoint.partition(":")
    if kind == "unix":
        path = socket_path(place, service, parameters)
        return next((each for each in listeners if each.listens_at(path)), None)
    match = re.fullmatch(r"(?:(?:\[(.*)\]|(.*)):)?(\d{1,5})", place)
    if not match:
        return None
    host = match[1] or match[2] or "localhost"
    return next((each for each in listeners if each.listens_on(host, int(match[3]))), None)


def is_chrooted(service: Service, parameters: Parameters) -> bool:
    """Return whether a service can only use files below the queue directory."""
    if service.chroot == "-":
        return parameters["compatibility_level"] in ("", "0")
    return service.chroot == "y"


def socket_path(path: str, service: Service, parameters: Parameters) -> str:
    """Return the file of a unix socket, which a service in a chroot sees below the queue directory."""
    queue = parameters["queue_directory"]
    if is_chrooted(service, parameters):
        return posixpath.normpath(f"{queue}/{path}")
    return posixpath.join(queue, path)
