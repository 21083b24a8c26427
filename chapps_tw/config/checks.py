"""Checks of combinations of options: conflicts, and options without effect."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import fields
from ipaddress import ip_address
from typing import NamedTuple

from chapps_tw.config.settings import Listener, PolicySection, Redis, Settings
from chapps_tw.config.values import nearest, plain
from chapps_tw.mail.request import ATTRIBUTES
from chapps_tw.security.private_files import is_world_readable

# Options that name files with secrets.
_SECRET_FILES = (
    "db_pass_file", "password_file", "sentinel_password_file", "relay_password_file", "webhook_secret_file",
)  # fmt: skip

# Similarity of a name and its misspelling.
_TYPO = 0.9

_ALL_INTERFACES = ("", "0.0.0.0", "::")

# Actions that neither stop nor divert mail.
_PASSING = ("DUNNO", "OK", "INFO", "WARN", "PREPEND", "BCC")


class Finding(NamedTuple):
    """A problem with an option.

    :ivar value: value of the option; a ``Secret`` is masked.
    :ivar words: the problem and its remedy, worded to follow the value.
    :ivar others: sections and names of the other options that it depends on.
    """

    section: str
    option: str
    value: object
    words: str
    others: tuple[tuple[str, str], ...] = ()


class Place(NamedTuple):
    """An endpoint of the configuration.

    :ivar listener: name of the listener; ``""`` is the HTTP API.
    :ivar endpoint: Twisted endpoint description.
    :ivar option: name of the option that configures it.
    :ivar address: name of the option that contains the address.
    :ivar value: value of ``option``.
    :ivar others: as in :class:`Finding`.
    """

    listener: str
    endpoint: str
    section: str
    option: str
    address: str
    value: object
    others: tuple[tuple[str, str], ...] = ()

    @property
    def what(self) -> str:
        """Its name in sentences."""
        return f"listener {self.listener}" if self.listener else "the HTTP API"

    def finding(self, words: str) -> Finding:
        """Return a problem with it."""
        return Finding(self.section, self.option, self.value, words, self.others)


def places(settings: Settings) -> list[Place]:
    """Return the endpoints of the HTTP API and the listeners."""
    api = settings.api.listen
    found = [Place("", api, "API", "listen", "listen", api)] if api else []
    return found + [_place(settings, listener) for listener in settings.listeners]


def _place(settings: Settings, listener: Listener) -> Place:
    name, endpoint = listener.name, listener.listen
    if not listener.origin:
        return Place(name, endpoint, f"Listener {name}", "listen", "listen", endpoint)
    section = next(each for each in settings.sections if each.section == listener.origin)
    others = tuple((listener.origin, option) for option in ("listen", "listen_address", "listen_port"))
    if section.listen == "auto":
        return Place(name, endpoint, listener.origin, "listen_port", "listen_address", section.listen_port, others)
    return Place(name, endpoint, listener.origin, "listen", "listen", endpoint, others)


def contradictions(settings: Settings) -> Iterator[Finding]:
    """Find errors: options that conflict."""
    yield from _of_users(settings)
    yield from _of_sentinels(settings.redis)
    yield from _of_processes(settings)
    yield from _of_policies(settings)
    yield from _of_listeners(settings)


def _of_users(settings: Settings) -> Iterator[Finding]:
    key = settings.chapps.user_key
    if settings.chapps.require_user_key and not key:
        words = "must name a request attribute while require_user_key is True"
        yield Finding("CHAPPS", "user_key", key, words, (("CHAPPS", "require_user_key"),))
    elif key and key not in ATTRIBUTES and (near := nearest(key, ATTRIBUTES, _TYPO)):
        yield Finding("CHAPPS", "user_key", key, f"must be an attribute of Postfix' policy requests{near}")


def _of_sentinels(redis: Redis) -> Iterator[Finding]:
    servers, dataset = ("Redis", "sentinel_servers"), ("Redis", "sentinel_dataset")
    if redis.sentinel_servers and not redis.sentinel_dataset:
        yield Finding(*dataset, "", "must name the master that sentinel_servers monitor", (servers,))
    if redis.sentinel_dataset and not redis.sentinel_servers:
        words = "must be empty, or sentinel_servers must list the Sentinels: host:port host:port ..."
        yield Finding(*dataset, redis.sentinel_dataset, words, (servers,))
    for server in redis.sentinel_servers.split():
        match = re.fullmatch(r"(?:\[[0-9A-Fa-f:.]+\]|[^:\s]+):(\d{1,5})", server)
        if not match or not 0 < int(match[1]) < 65536:
            yield Finding(*servers, server, "must be host:port, separated by spaces")


def _of_processes(settings: Settings) -> Iterator[Finding]:
    processes = settings.chapps.processes
    if processes > 1 and not settings.uses_redis:
        words = "needs a state that all processes share: set [Redis] server, unix_socket or sentinel_servers, or use 1"
        yield Finding("CHAPPS", "processes", processes, words, (("Redis", "server"), ("Redis", "sentinel_servers")))


def _of_policies(settings: Settings) -> Iterator[Finding]:
    for section in settings.sections:
        if isinstance(section, PolicySection):
            for name, words, others in section.contradictions():
                value = getattr(section, name)
                shown = plain(value) if isinstance(value, float) else value
                yield Finding(section.section, name, shown, words, tuple((section.section, each) for each in others))


def _of_listeners(settings: Settings) -> Iterator[Finding]:
    listen = settings.api.listen
    if settings.api.auth == "none" and listen and not is_local(listen):
        words = f"must be token unless listen is a loopback address or a unix socket, not {listen!r}"
        yield Finding("API", "auth", "none", words, (("API", "listen"),))
    elif settings.api.auth == "none" and listen.startswith("unix:") and _for_others(listen):
        words = (
            "needs :mode=600, or :mode=660 for a group, while auth is none: otherwise every local account can use it"
        )
        yield Finding("API", "listen", listen, words, (("API", "auth"),))
    names = [listener.name for listener in settings.own_listeners]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield Finding(f"Listener {name}", "listen", "", f"is a duplicate; rename one of the sections [Listener {name}]")
    found = places(settings)
    for number, place in enumerate(found):
        taken = [other for other in found[:number] if _clash(place.endpoint, other.endpoint)]
        for other in taken[:1]:
            others = (*place.others, (other.section, other.option), *other.others)
            yield place._replace(others=others).finding(f"is already used by {other.what} ({other.endpoint})")


def _clash(one: str, other: str) -> bool:
    if one == other or unix_path(one) == unix_path(other) != "":
        return True
    port, interface = port_and_interface(one)
    other_port, other_interface = port_and_interface(other)
    same = interface == other_interface or interface in _ALL_INTERFACES or other_interface in _ALL_INTERFACES
    return port == other_port and port > 0 and same


def port_and_interface(endpoint: str) -> tuple[int, str]:
    """Return port and address of a TCP or TLS endpoint; ``""`` is every address. The port is -1 for other endpoints."""
    match = re.match(r"(?:haproxy:)?(?:tcp6?|ssl):(?:port=)?(\d{1,9})(?=:|$)", endpoint)
    if not match:
        return -1, ""
    interface = re.search(r":interface=((?:\\:|[^:])*)", endpoint)
    address = interface[1].replace("\\:", ":") if interface else ""
    return int(match[1]), "127.0.0.1" if address == "localhost" else address


def unix_path(endpoint: str) -> str:
    """Return the path of a unix endpoint, ``""`` for other endpoints."""
    match = re.match(r"(?:haproxy:)?unix:(?:(?:.*:)?address=)?((?:\\.|[^:\\])+)", endpoint)
    return re.sub(r"\\(.)", r"\1", match[1]) if match else ""


def _for_others(endpoint: str) -> bool:
    """Whether a unix endpoint creates a world-writable socket. Without a mode, Twisted does."""
    modes = re.findall(r"(?<!\\):mode=([0-7]{1,4})(?=:|$)", endpoint)
    return not modes or bool(int(modes[-1], 8) & 0o007)


def is_local(endpoint: str) -> bool:
    """Whether a Twisted endpoint can only be reached from this machine."""
    if endpoint.startswith("unix:"):
        return True
    try:
        return ip_address(port_and_interface(endpoint)[1]).is_loopback
    except ValueError:
        return False


def warnings(settings: Settings) -> Iterator[Finding]:
    """Find options that work, but probably not as intended."""
    key = settings.chapps.user_key
    if key and key not in ATTRIBUTES and not nearest(key, ATTRIBUTES, _TYPO):
        result = "all mail is refused" if settings.chapps.require_user_key else "it identifies no user"
        words = f"is not a documented attribute of Postfix; if it is missing, {result}{nearest(key, ATTRIBUTES)}"
        yield Finding("CHAPPS", "user_key", key, words)
    if not os.path.isabs(settings.chapps.data_dir):
        words = "should be an absolute path, such as /var/lib/chapps; it depends on where the service is started"
        yield Finding("CHAPPS", "data_dir", settings.chapps.data_dir, words)
    yield from _of_answers(settings)
    yield from _of_reach(settings)
    yield from _without_effect(settings)
    yield from _of_nodes(settings)
    yield from _of_secrets(settings)
    for listener in settings.listeners:
        yield from _without_greylisting(settings, listener)


def _of_answers(settings: Settings) -> Iterator[Finding]:
    """Find rejection messages that accept mail, and acceptance messages that accept too much."""
    for section in settings.sections:
        answers = {
            each.name: getattr(section, each.name)
            for each in fields(section)
            if each.name.endswith("_message") or each.name == "no_user_key_response"
        }
        accepting = answers.pop("acceptance_message", "")
        if accepting.partition(" ")[0] == "OK":
            words = (
                "ends the restriction list of Postfix: later restrictions are skipped, and before "
                "reject_unauth_destination this makes an open relay; use DUNNO to accept mail"
            )
            yield Finding(section.section, "acceptance_message", accepting, words)
        for name, answer in answers.items():
            if answer.partition(" ")[0] in _PASSING:
                words = "accepts the mail that it should refuse; use mode = shadow to test a policy"
                yield Finding(section.section, name, answer, words)


def _of_reach(settings: Settings) -> Iterator[Finding]:
    """Find listeners that nobody or everybody can reach."""
    if not settings.listeners:
        yield Finding(settings.oqp.section, "listen", "", "is empty like all others: no listener answers Postfix")
    for place in places(settings):
        port, interface = port_and_interface(place.endpoint)
        if place.listener and port >= 0 and interface in _ALL_INTERFACES:
            words = (
                f"opens port {port} on every address: the policy protocol has no authentication, so anyone who can "
                "connect can use up the quota of any user; use 127.0.0.1 if Postfix runs here, otherwise one address "
                "behind a firewall"
            )
            shown = place.value if place.option == place.address else interface
            yield Finding(place.section, place.address, shown, words, place.others)


def _without_effect(settings: Settings) -> Iterator[Finding]:
    """Find options without effect because another one is not set."""
    redis, adapter = settings.redis, settings.adapter
    if not settings.uses_redis:
        for name in _changed(redis, ("port", "username", "password", "password_file", "db", "tls", "ca_file")):
            words = "has no effect: without server, unix_socket or sentinel_servers, the state is a SQLite file"
            yield Finding("Redis", name, getattr(redis, name), words)
    elif redis.ca_file and not redis.tls:
        yield Finding("Redis", "ca_file", redis.ca_file, "has no effect while tls is False", (("Redis", "tls"),))
    if adapter.adapter == "sqlite" and not adapter.db_url:
        for name in _changed(adapter, ("db_host", "db_port", "db_user", "db_pass", "db_pass_file")):
            words = "has no effect while adapter is sqlite, which uses a file; did you mean postgresql or mariadb?"
            yield Finding("PolicyConfigAdapter", name, getattr(adapter, name), words)


def _of_nodes(settings: Settings) -> Iterator[Finding]:
    """Find a state file next to a database server: several nodes may share the database, but not the file."""
    adapter = settings.adapter
    if not settings.uses_redis and not (adapter.db_url or adapter.adapter).startswith("sqlite"):
        words = (
            "is local to this node: with other nodes on the same database, a user has the full quota on each node, and "
            "changes made here take effect there only after [PolicyConfigAdapter] refresh; use [Redis] server to share "
            "the state"
        )
        others = (("PolicyConfigAdapter", "adapter"), ("PolicyConfigAdapter", "db_url"), ("Redis", "server"))
        yield Finding("State", "path", settings.state_path, words, others)


def _of_secrets(settings: Settings) -> Iterator[Finding]:
    """Find password and token files that are world-readable."""
    found = [
        (section.section, name, getattr(section, name))
        for section in (settings.adapter, settings.redis, settings.notify)
        for name in _SECRET_FILES
        if getattr(section, name, "")
    ]
    if settings.api.auth == "token":
        found.append(("API", "token_file", settings.token_path))
    for section, name, path in found:
        if is_world_readable(path):
            yield Finding(section, name, path, f"is readable by every local account; run chmod o-r {path}")


def _changed(section: object, names: tuple[str, ...]) -> list[str]:
    default = type(section)()
    return [name for name in names if getattr(section, name) != getattr(default, name)]


def _without_greylisting(settings: Settings, listener: Listener) -> Iterator[Finding]:
    """Find SPF policies with the action ``greylist`` that no greylisting policy follows."""
    policies, spf, greylisting = listener.policies, settings.spf.section, settings.grl.section
    if spf not in policies:
        return
    later = policies[policies.index(spf) :]
    actions = settings.spf_actions
    affected = [each.name for each in fields(actions) if getattr(actions, each.name) == "greylist"]
    if affected and greylisting not in later:
        words = (
            f"has no {greylisting} after {spf}: mail with the action greylist in [PostfixSPFActions] "
            f"({', '.join(affected)}) passes with a header"
        )
        yield Finding(f"Listener {listener.name}", "policies", ", ".join(policies), words)
