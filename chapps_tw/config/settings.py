"""The effective configuration, :class:`Settings`.

Every option is a field of a section class, with name, type, default and help. The sample configuration, the
documentation and the file that the service writes are generated from them.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from chapps_tw.config.limits import RateLimit
from chapps_tw.config.notify import Notify
from chapps_tw.config.policy_sections import (
    MODE,
    ON_FAILURE,
    Contradiction,
    GreylistingPolicy,
    OutboundQuotaPolicy,
    PolicySection,
    PostfixSPFActions,
    RateLimitPolicy,
    SenderDomainAuthPolicy,
    SPFEnforcementPolicy,
)
from chapps_tw.config.sections import API, Chapps, History, Log, PolicyConfigAdapter, Redis, State, option
from chapps_tw.config.values import MAX_NODE, Secret, addresses, nearest, required

__all__ = [
    "API",
    "MODE",
    "OBSOLETE",
    "ON_FAILURE",
    "REPLACED",
    "SECRETS",
    "SECTIONS",
    "Chapps",
    "ConfigError",
    "Contradiction",
    "GreylistingPolicy",
    "History",
    "Listener",
    "Log",
    "Notify",
    "OutboundQuotaPolicy",
    "PolicyConfigAdapter",
    "PolicySection",
    "PostfixSPFActions",
    "RateLimit",
    "RateLimitPolicy",
    "Redis",
    "SPFEnforcementPolicy",
    "SenderDomainAuthPolicy",
    "Settings",
    "State",
    "option",
    "policy_names",
]

S = TypeVar("S")


class ConfigError(Exception):
    """All errors of a configuration.

    :ivar problems: one sentence for each error, with file, section, option, value and remedy.
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def policy_names(known: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    """Return a parser for an ordered list of policies.

    :param known: names of all policies.
    """

    def parse(value: str) -> tuple[str, ...]:
        names = addresses(value)
        wrong = next((name for name in names if name not in known), "")
        if not names or wrong or len(set(names)) < len(names):
            raise ValueError("a list without duplicates of " + ", ".join(known) + nearest(wrong, known))
        return names

    return parse


@dataclass(frozen=True)
class Listener:
    """One policy listener: ``[Listener NAME]``.

    :ivar origin: the policy section that configures a default listener; empty for ``[Listener NAME]``.
    """

    section: ClassVar[str] = "Listener"
    name: str = ""
    listen: str = option("", "Twisted endpoint.", required, restart=True)
    policies: tuple[str, ...] = option("OutboundQuotaPolicy", "Policies, in order.", addresses)
    origin: str = ""


# An option of older files, and the options that default to its value.
REPLACED = {("GreylistingPolicy", "cache_ttl"): ("retry_window", "pass_ttl", "tally_ttl", "flag_ttl")}

# Options of CHAPPS 0.5 that have no effect; accepted silently.
OBSOLETE = {("CHAPPS", name) for name in ("listen_address", "listen_port", "config_file", "version", "docpath")} | {
    ("SPFEnforcementPolicy", "whitelist")
}


@dataclass(frozen=True)
class Settings:
    """The effective configuration. Immutable; every value has the type of its option.

    :ivar limits: the limits of ``[Limit NAME]``, in the order of the file.
    :ivar added: sections of policies that have no field here.
    :ivar db_password, redis_password, sentinel_password, relay_password, webhook_secret: from the options or the files
        they name.
    :ivar path: path of the file, ``""`` for the defaults.
    :ivar warnings: sentences for the log. Not compared, because they contain line numbers.
    :ivar content: contents of the file. Not in the repr, because it may contain secrets.
    :ivar overridden: values in the file of options that the environment overrides, by section and name. Not in the
        repr, because some are secrets.
    """

    chapps: Chapps = field(default_factory=Chapps)
    adapter: PolicyConfigAdapter = field(default_factory=PolicyConfigAdapter)
    redis: Redis = field(default_factory=Redis)
    state: State = field(default_factory=State)
    api: API = field(default_factory=API)
    log: Log = field(default_factory=Log)
    history: History = field(default_factory=History)
    notify: Notify = field(default_factory=Notify)
    oqp: OutboundQuotaPolicy = field(default_factory=OutboundQuotaPolicy)
    sda: SenderDomainAuthPolicy = field(default_factory=SenderDomainAuthPolicy)
    grl: GreylistingPolicy = field(default_factory=GreylistingPolicy)
    spf: SPFEnforcementPolicy = field(default_factory=SPFEnforcementPolicy)
    spf_actions: PostfixSPFActions = field(default_factory=PostfixSPFActions)
    rlp: RateLimitPolicy = field(default_factory=RateLimitPolicy)
    added: tuple[PolicySection, ...] = ()
    limits: tuple[RateLimit, ...] = ()
    own_listeners: tuple[Listener, ...] = ()
    db_password: Secret = Secret("")
    redis_password: Secret = Secret("")
    sentinel_password: Secret = Secret("")
    relay_password: Secret = Secret("")
    webhook_secret: Secret = Secret("")
    path: str = ""
    warnings: tuple[str, ...] = field(default=(), compare=False)
    content: bytes = field(default=b"", compare=False, repr=False)
    overridden: Mapping[tuple[str, str], str] = field(default_factory=dict, compare=False, repr=False)

    @property
    def sections(self) -> tuple[Any, ...]:
        """All sections except ``[Limit NAME]`` and ``[Listener NAME]``, in the order in which they are written."""
        return (*(getattr(self, name) for name in SECTIONS), *self.added)

    def section(self, kind: type[S]) -> S:
        """Return the section of a class.

        :raises LookupError: if there is none.
        """
        for section in self.sections:
            if isinstance(section, kind):
                return section
        raise LookupError(f"the settings have no section {kind.__name__}")

    @property
    def listeners(self) -> tuple[Listener, ...]:
        """The listeners: those of ``[Listener NAME]`` if there are any, otherwise the default ones."""
        if self.own_listeners:
            return self.own_listeners
        listening = (
            *(self.oqp, self.grl, self.spf),
            *([self.sda] if self._sda_listens else []),
            *([self.rlp] if self.limits else []),
        )
        return tuple(
            Listener(each.listener, each.endpoint, each.policies, each.section) for each in listening if each.endpoint
        )

    @property
    def _sda_listens(self) -> bool:
        """Whether sender authorization has a separate listener, in addition to the outbound one."""
        wanted = self.sda.listen != "auto" or self.sda.endpoint != SenderDomainAuthPolicy().endpoint
        return wanted and self.sda.endpoint != self.oqp.endpoint

    @property
    def state_path(self) -> str:
        """Path of the SQLite file of the live state."""
        return self.state.path or str(Path(self.chapps.data_dir, "state.sqlite3"))

    @property
    def token_path(self) -> str:
        """Path of the file of the API token."""
        return self.api.token_file or str(Path(self.chapps.data_dir, "api-token"))

    @property
    def node(self) -> str:
        """Name of this node: ``[CHAPPS] node``, or the host name."""
        return self.chapps.node or socket.gethostname()[:MAX_NODE]

    @property
    def uses_redis(self) -> bool:
        """Whether the live state is stored in Redis rather than in a SQLite file."""
        return bool(self.redis.server or self.redis.unix_socket or self.redis.sentinel_servers)


SECTIONS: dict[str, type[Any]] = {
    "chapps": Chapps,
    "adapter": PolicyConfigAdapter,
    "redis": Redis,
    "state": State,
    "api": API,
    "log": Log,
    "history": History,
    "notify": Notify,
    "oqp": OutboundQuotaPolicy,
    "sda": SenderDomainAuthPolicy,
    "grl": GreylistingPolicy,
    "spf": SPFEnforcementPolicy,
    "spf_actions": PostfixSPFActions,
    "rlp": RateLimitPolicy,
}

# The fields of passwords and keys: the section of each, and the option that it or the name of its file is in.
SECRETS = {
    "db_password": ("adapter", "db_pass"),
    "redis_password": ("redis", "password"),
    "sentinel_password": ("redis", "sentinel_password"),
    "relay_password": ("notify", "relay_password"),
    "webhook_secret": ("notify", "webhook_secret"),
}
