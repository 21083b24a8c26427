"""chapps.ini -> :class:`Settings`.

Every option is one field of one section class below: name, type, default, help. The sample
configuration, the documentation and the file that the service writes are made from them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeVar

from chapps_tw.config.actions import acceptance, message, spf_action
from chapps_tw.config.values import (
    Margin,
    Secret,
    addresses,
    attribute,
    boolean,
    choice,
    encoding,
    host,
    host_names,
    nearest,
    parse_margin,
    parse_recipients,
    plain,
    required,
    seconds,
    separators,
    text,
    whole,
)
from chapps_tw.mail.network import (
    HeloEntry,
    Network,
    Server,
    parse_helo_whitelist,
    parse_host_name,
    parse_nameservers,
    parse_networks,
)

S = TypeVar("S")


class ConfigError(Exception):
    """Everything that is wrong with a configuration.

    :ivar problems: one sentence each, naming file, section, option, value and remedy.
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def option(default: str, help: str, parse: Callable[[str], Any] = text, joint: str = " ") -> Any:
    """One option: its default as text, one line of help, and how its text becomes a value.

    :param joint: what stands between several values.
    """
    metadata = {"default": default, "help": help, "parse": parse, "joint": joint}
    return field(default_factory=lambda: parse(default), metadata=metadata)


@dataclass(frozen=True)
class Chapps:
    section: ClassVar[str] = "CHAPPS"
    payload_encoding: str = option("utf-8", "Encoding of Postfix requests; undecodable bytes are kept.", encoding)
    user_key: str = option("sasl_username", "Request attribute that names the user.", attribute)
    require_user_key: bool = option("True", "No other attribute may stand in for user_key.", boolean)
    fold_case: bool = option(
        "True", "Letter case tells no two users or addresses apart; run admin db-setup when it was changed.", boolean
    )
    no_user_key_response: str = option(
        "REJECT Rejected - Authentication failed", "Answer to mail whose user cannot be told.", message()
    )
    password: Secret = option(
        "", "Passcode hash for writing the configuration over HTTP (chapps-cli admin passcode).", Secret
    )
    listener_backlog: int = option("100", "Connections that may wait to be accepted.", whole(1, 65535))
    helo_whitelist: tuple[HeloEntry, ...] = option(
        "", "name[:address][;...]: clients that skip greylisting and SPF; IPv6 in brackets.", parse_helo_whitelist, "; "
    )
    trusted_networks: tuple[Network, ...] = option(
        "127.0.0.0/8 ::1/128", "Clients that skip greylisting and SPF: address[/bits] ...", parse_networks
    )
    data_dir: str = option("/var/lib/chapps", "Where the embedded files and the API token are.", required)
    request_timeout: float = option("2", "Seconds until a request is answered by on_failure.", seconds(0.1, 60))


@dataclass(frozen=True)
class PolicyConfigAdapter:
    section: ClassVar[str] = "PolicyConfigAdapter"
    adapter: str = option(
        "sqlite", "sqlite, postgresql or mariadb (mysql).", choice("sqlite", "postgresql", "mariadb", "mysql")
    )
    db_host: str = option("localhost", "Name, address or unix socket of the database server.", host)
    db_port: int = option("0", "Its port; 0 is the server's usual one.", whole(0, 65535))
    db_name: str = option(
        "chapps", "Name of the database; for sqlite an absolute path, else data_dir/NAME.sqlite3.", required
    )
    db_user: str = option("chapps", "User of the database.")
    db_pass: Secret = option("", "Password of the database user.", Secret)
    db_pass_file: str = option("", "File that holds the password instead.")
    db_url: Secret = option("", "SQLAlchemy URL; wins over the options above.", Secret)
    pool_size: int = option("8", "Database connections.", whole(1, 100))
    refresh: float = option(
        "60",
        "Seconds after which a copy of what it says is compared with it again; while it is away copies last cache_ttl.",
        seconds(1, 86400),
    )


@dataclass(frozen=True)
class Redis:
    section: ClassVar[str] = "Redis"
    server: str = option("", "Redis server. With none, and no Sentinel, the state is an embedded file.", host)
    port: int = option("6379", "Its port.", whole(1, 65535))
    unix_socket: str = option("", "Path of the server's unix socket; wins over server and port.")
    username: str = option("", "ACL user.")
    password: Secret = option("", "Password.", Secret)
    password_file: str = option("", "File that holds the password instead.")
    db: int = option("0", "Database number.", whole(0, 65535))
    tls: bool = option("False", "Speak TLS, with the Sentinels too, and verify the servers' certificates.", boolean)
    ca_file: str = option("", "PEM file of the certificate authority; the system's ones when empty.")
    sentinel_servers: str = option("", "host:port host:port ...")
    sentinel_dataset: str = option("", "Name of the master that the Sentinels watch.")
    sentinel_username: str = option("", "ACL user of the Sentinels themselves.")
    sentinel_password: Secret = option("", "Password of the Sentinels themselves.", Secret)
    sentinel_password_file: str = option("", "File that holds the Sentinels' password instead.")
    pool_size: int = option("4", "Connections for commands.", whole(1, 64))
    key_prefix: str = option("chapps", "First part of every key.", required)


@dataclass(frozen=True)
class State:
    section: ClassVar[str] = "State"
    path: str = option("", "File of the embedded state; empty is data_dir/state.sqlite3.")


@dataclass(frozen=True)
class API:
    section: ClassVar[str] = "API"
    listen: str = option("tcp:8080:interface=127.0.0.1", "Twisted endpoint of the HTTP API; empty turns it off.")
    auth: str = option(
        "token", "token or none; none only on a loopback address or unix socket.", choice("token", "none")
    )
    token_file: str = option("", "File of the API token; empty is data_dir/api-token.")
    hosts: tuple[str, ...] = option(
        "localhost 127.0.0.1 [::1]", "Names accepted in the Host header, without port.", host_names
    )


@dataclass(frozen=True)
class Log:
    section: ClassVar[str] = "Log"
    format: str = option(
        "text", "Form of the line that each decision is logged as: text or json.", choice("text", "json")
    )
    file: str = option("-", "File that decisions are appended to; - is standard output, empty is none.")


class Contradiction(NamedTuple):
    """An option that cannot work with others of its section.

    :ivar words: what is wrong and what would help, worded to follow its value.
    :ivar others: names of the others.
    """

    option: str
    words: str
    others: tuple[str, ...] = ()


class PolicySection:
    """What the sections of all policies have in common; each is a frozen dataclass of :func:`option`.

    :cvar section: name of the section, and of the policy.
    :ivar mode: an option made of :data:`MODE`.
    :ivar on_failure: an option made of :data:`ON_FAILURE`.
    """

    section: ClassVar[str]
    mode: str
    on_failure: str

    def contradictions(self) -> Iterable[Contradiction]:
        """What single options cannot tell: which of them cannot work together."""
        return ()


class _ListeningSection(PolicySection):
    """That of a policy which has a default listener.

    :cvar listener: its name.
    :cvar asked: the policies that it asks, in order.
    """

    listener: ClassVar[str]
    asked: ClassVar[tuple[str, ...]]
    listen_address: str
    listen_port: int
    listen: str

    @property
    def endpoint(self) -> str:
        """Twisted endpoint description, from ``listen`` or from address and port; empty is none."""
        if self.listen != "auto":
            return self.listen
        address = "127.0.0.1" if self.listen_address == "localhost" else self.listen_address.strip("[]")
        family = "tcp6" if ":" in address else "tcp"
        interface = address.replace(":", r"\:")
        return f"{family}:{self.listen_port}" + (f":interface={interface}" if interface else "")


_LISTEN = "Twisted endpoint; auto is address and port as above, empty is no such listener."
MODE = ("enforce, or shadow: decide, log and count, but let through.", choice("enforce", "shadow"))
ON_FAILURE = ("defer or accept, when the state or the database cannot be asked.", choice("defer", "accept"))
_TTL = seconds(1, 31536000)

# What each policy fills into its answers; retry_in is retry_after in words. Of mail that passes, retry_after is 0.
_QUOTA_FIGURES = ("limit", "used", "remaining", "retry_after", "retry_in", "user", "sender")
_SENDER_FIGURES = ("user", "sender")
_GREYLIST_FIGURES = ("retry_after", "retry_in", "sender", "recipient")
_SPF_ACTION = spf_action("reason")


@dataclass(frozen=True)
class OutboundQuotaPolicy(_ListeningSection):
    section: ClassVar[str] = "OutboundQuotaPolicy"
    listener: ClassVar[str] = "outbound"
    asked: ClassVar[tuple[str, ...]] = ("SenderDomainAuthPolicy", "OutboundQuotaPolicy")
    listen_address: str = option("localhost", "Address of the outbound listener (sender authorization, then quota).")
    listen_port: int = option("10225", "Its port.", whole(1, 65535))
    listen: str = option("auto", _LISTEN)
    acceptance_message: str = option(
        "DUNNO", "Answer to what is within the quota. Filled in as below.", acceptance(*_QUOTA_FIGURES)
    )
    rejection_message: str = option(
        "REJECT Rejected - outbound quota fulfilled: {used} of {limit} used, try again in {retry_in}",
        "Answer to the rest; 450 4.7.1 in place of REJECT lets mail programs try again by themselves. Filled in are "
        "{limit} {used} {remaining} {user} {sender}, and {retry_after} in seconds, which {retry_in} tells in words.",
        message(*_QUOTA_FIGURES),
    )
    too_large_message: str = option(
        "REJECT Rejected - this message alone is more than the outbound quota of {limit}",
        "Answer to a message that waiting is no use for. Filled in as rejection_message.",
        message(*_QUOTA_FIGURES),
    )
    no_quota_message: str = option(
        "REJECT Rejected - {user} has no quota for outgoing mail; ask your provider",
        "Answer to a user without a quota. Filled in as rejection_message.",
        message(*_QUOTA_FIGURES),
    )
    unknown_user_message: str = option(
        "REJECT Rejected - {user} may not send mail here; ask your provider",
        "Answer to a user who is not in the database. Filled in as rejection_message.",
        message(*_QUOTA_FIGURES),
    )
    null_sender_ok: bool = option("False", "Let the null sender through where no user is named.", boolean)
    mode: str = option("enforce", *MODE)
    on_failure: str = option("defer", *ON_FAILURE)
    cache_ttl: float = option("86400", "Seconds that a user's limit stays in the state store.", _TTL)
    interval: float = option("86400", "Seconds of the rolling interval.", seconds(1, 31536000))
    margin: Margin = option(
        "0.10",
        "How far a message that begins below the limit may run over it: "
        "10 is ten transmissions; 0.10, 10.0 and 10% are a tenth of the limit.",
        parse_margin,
    )
    min_delta: float = option(
        "0", "Seconds that must pass between two messages of a user; 0 is off.", seconds(0, 86400)
    )
    min_delta_message: str = option(
        "DEFER_IF_PERMIT Too soon after the message before, try again in {retry_in}",
        "Answer to a message that comes earlier. Filled in as rejection_message.",
        message(*_QUOTA_FIGURES),
    )
    counting_recipients: bool = option("True", "Count each recipient, not each message.", boolean)


@dataclass(frozen=True)
class SenderDomainAuthPolicy(_ListeningSection):
    section: ClassVar[str] = "SenderDomainAuthPolicy"
    listener: ClassVar[str] = "sender-auth"
    asked: ClassVar[tuple[str, ...]] = ("SenderDomainAuthPolicy",)
    listen_address: str = option(
        "localhost", "Address of a listener of its own, when address or port are neither these nor the quota policy's."
    )
    listen_port: int = option("10225", "Its port.", whole(1, 65535))
    listen: str = option(
        "auto", "Twisted endpoint of such a listener, wherever it is; auto is address and port as above, empty is none."
    )
    acceptance_message: str = option(
        "DUNNO", "Answer to an authorized sender. Filled in as below.", acceptance(*_SENDER_FIGURES)
    )
    rejection_message: str = option(
        "REJECT Rejected - {user} is not allowed to send mail as {sender}",
        "Answer to any other. {user} {sender} are filled in.",
        message(*_SENDER_FIGURES),
    )
    null_sender_ok: bool = option("False", "Let the null sender through.", boolean)
    mode: str = option("enforce", *MODE)
    on_failure: str = option("defer", *ON_FAILURE)
    cache_ttl: float = option("86400", "Seconds that a verdict stays in the state store.", _TTL)
    subaddress_separators: str = option(
        "+",
        "Characters of which the first ends an address: with +, a+b@c may be sent from as a@c. Empty is none.",
        separators,
    )


@dataclass(frozen=True)
class GreylistingPolicy(_ListeningSection):
    section: ClassVar[str] = "GreylistingPolicy"
    listener: ClassVar[str] = "greylisting"
    asked: ClassVar[tuple[str, ...]] = ("GreylistingPolicy",)
    listen_address: str = option("localhost", "Address of the greylisting listener.")
    listen_port: int = option("10226", "Its port.", whole(1, 65535))
    listen: str = option("auto", _LISTEN)
    acceptance_message: str = option(
        "DUNNO", "Answer to mail that may pass. Filled in as below.", acceptance(*_GREYLIST_FIGURES)
    )
    rejection_message: str = option(
        "DEFER_IF_PERMIT Service temporarily unavailable - greylisted, retry in {retry_in}",
        "Answer to mail that must come back. {retry_after} (seconds), {retry_in} (words), {sender}, {recipient} fit.",
        message(*_GREYLIST_FIGURES),
    )
    null_sender_ok: bool = option("False", "Let the null sender through.", boolean)
    mode: str = option("enforce", *MODE)
    on_failure: str = option("accept", *ON_FAILURE)
    minimum_deferral: float = option("60", "Seconds that a new tuple must wait.", seconds(0, 86400))
    retry_window: float = option("172800", "Seconds after it was deferred in which a tuple must come back.", _TTL)
    pass_ttl: float = option("3024000", "Seconds that a tuple which has passed is remembered.", _TTL)
    tally_ttl: float = option("3024000", "Seconds that the messages which a client has passed are remembered.", _TTL)
    flag_ttl: float = option("86400", "Seconds that a domain's flag stays in the state store.", _TTL)
    whitelist_threshold: int = option("10", "Messages after which a client passes at once; 0 is off.", whole(0, 10000))
    ipv4_prefix: int = option("24", "Bits of an IPv4 address that make one client.", whole(0, 32))
    ipv6_prefix: int = option("64", "Bits of an IPv6 address that make one client.", whole(0, 128))
    spf_identity: bool = option(
        "True", "A domain whose MAIL FROM passed SPF names the client too, so that a pool waits once.", boolean
    )
    exempt_recipients: frozenset[str] = option(
        "abuse@ postmaster@",
        "Recipients that are not greylisted: local@ at any domain, or whole ones.",
        parse_recipients,
    )

    def contradictions(self) -> Iterable[Contradiction]:
        if self.retry_window <= self.minimum_deferral:
            words = (
                f"must be more than minimum_deferral ({plain(self.minimum_deferral)}), better by some hours: a tuple "
                "that is forgotten before it may come back never passes"
            )
            yield Contradiction("retry_window", words, ("minimum_deferral",))


@dataclass(frozen=True)
class SPFEnforcementPolicy(_ListeningSection):
    section: ClassVar[str] = "SPFEnforcementPolicy"
    listener: ClassVar[str] = "inbound"
    asked: ClassVar[tuple[str, ...]] = ("SPFEnforcementPolicy", "GreylistingPolicy")
    listen_address: str = option("localhost", "Address of the inbound listener (SPF, then greylisting).")
    listen_port: int = option("10227", "Its port.", whole(1, 65535))
    listen: str = option("auto", _LISTEN)
    null_sender_ok: bool = option("False", "Let the null sender through without a check.", boolean)
    mode: str = option("enforce", *MODE)
    on_failure: str = option("accept", *ON_FAILURE)
    cache_ttl: float = option("86400", "Seconds that a domain's flag stays in the state store.", _TTL)
    spf_query_timeout: float = option("20", "Seconds for the whole check.", seconds(0.1, 100))
    nameservers: tuple[Server, ...] = option("", "address[:port] ...; empty is the system's.", parse_nameservers)
    receiver: str = option("", "Name of this host in Received-SPF; empty is the system's host name.", parse_host_name)
    void_lookup_limit: int = option("2", "Terms of SPF records that may find nothing in DNS.", whole(0, 100))
    record_size_limit: int = option("16384", "Octets of an SPF record; a longer one is a permerror.", whole(512, 65535))
    answer_size_limit: int = option("65535", "Octets of a DNS answer; a longer one is not read.", whole(4096, 65535))
    answer_record_limit: int = option("512", "Records of a DNS answer; one with more is not read.", whole(16, 4096))


@dataclass(frozen=True)
class PostfixSPFActions:
    section: ClassVar[str] = "PostfixSPFActions"
    passing: str = option(
        "prepend", "SPF pass. prepend, greylist, dunno, okay, or a Postfix reply; {reason} is filled in.", _SPF_ACTION
    )
    fail: str = option("550 5.7.1 SPF check failed: {reason}", "SPF fail.", _SPF_ACTION)
    softfail: str = option("greylist", "SPF softfail.", _SPF_ACTION)
    none_neutral: str = option("greylist", "SPF none or neutral.", _SPF_ACTION)
    temperror: str = option("451 4.4.3 SPF record(s) temporarily unavailable: {reason}", "SPF temperror.", _SPF_ACTION)
    permerror: str = option("550 5.5.2 SPF record(s) are malformed: {reason}", "SPF permerror.", _SPF_ACTION)


def policy_names(known: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    """Names of policies, in the order they are asked.

    :param known: the names of all that there are.
    """

    def parse(value: str) -> tuple[str, ...]:
        names = addresses(value)
        wrong = next((name for name in names if name not in known), "")
        if not names or wrong or len(set(names)) < len(names):
            raise ValueError("different ones of " + ", ".join(known) + nearest(wrong, known))
        return names

    return parse


@dataclass(frozen=True)
class Listener:
    """One policy listener: ``[Listener NAME]``.

    :ivar origin: the section that says where it listens; empty is its own.
    """

    section: ClassVar[str] = "Listener"
    name: str = ""
    listen: str = option("", "Twisted endpoint.", required)
    policies: tuple[str, ...] = option("OutboundQuotaPolicy", "Policies, in the order they are asked.", addresses)
    origin: str = ""


# An option of older files, and those that it stands for where they are not given.
REPLACED = {("GreylistingPolicy", "cache_ttl"): ("retry_window", "pass_ttl", "tally_ttl", "flag_ttl")}

# Options of CHAPPS 0.5 files that mean nothing here; read without complaint.
OBSOLETE = {("CHAPPS", name) for name in ("listen_address", "listen_port", "config_file", "version", "docpath")} | {
    ("SPFEnforcementPolicy", "whitelist")
}


@dataclass(frozen=True)
class Settings:
    """The effective configuration. Frozen; every value is of its option's type.

    :ivar added: the sections of the policies that have no field here.
    :ivar db_password, redis_password, sentinel_password: from the options or the files they name.
    :ivar path: the file it came from, ``""`` for the built-in defaults.
    :ivar warnings: sentences for the log. They tell lines of the file, and are no part of what the settings are.
    :ivar content: the file's bytes as they were read. Not shown: they may hold secrets.
    :ivar overridden: of the options that the environment gives, by section and name, what the file says. Not shown:
        some are secrets.
    """

    chapps: Chapps = field(default_factory=Chapps)
    adapter: PolicyConfigAdapter = field(default_factory=PolicyConfigAdapter)
    redis: Redis = field(default_factory=Redis)
    state: State = field(default_factory=State)
    api: API = field(default_factory=API)
    log: Log = field(default_factory=Log)
    oqp: OutboundQuotaPolicy = field(default_factory=OutboundQuotaPolicy)
    sda: SenderDomainAuthPolicy = field(default_factory=SenderDomainAuthPolicy)
    grl: GreylistingPolicy = field(default_factory=GreylistingPolicy)
    spf: SPFEnforcementPolicy = field(default_factory=SPFEnforcementPolicy)
    spf_actions: PostfixSPFActions = field(default_factory=PostfixSPFActions)
    added: tuple[PolicySection, ...] = ()
    own_listeners: tuple[Listener, ...] = ()
    db_password: Secret = Secret("")
    redis_password: Secret = Secret("")
    sentinel_password: Secret = Secret("")
    path: str = ""
    warnings: tuple[str, ...] = field(default=(), compare=False)
    content: bytes = field(default=b"", compare=False, repr=False)
    overridden: Mapping[tuple[str, str], str] = field(default_factory=dict, compare=False, repr=False)

    @property
    def sections(self) -> tuple[Any, ...]:
        """All sections but those of listeners, in the order in which they are written."""
        return (*(getattr(self, name) for name in SECTIONS), *self.added)

    def section(self, kind: type[S]) -> S:
        """The section of a kind.

        :raises LookupError: when there is none.
        """
        for section in self.sections:
            if isinstance(section, kind):
                return section
        raise LookupError(f"the settings have no section {kind.__name__}")

    @property
    def listeners(self) -> tuple[Listener, ...]:
        """The listeners to open: those of ``[Listener NAME]``, else the default ones."""
        if self.own_listeners:
            return self.own_listeners
        listening = (self.oqp, self.grl, self.spf, *([self.sda] if self._sda_listens else []))
        return tuple(
            Listener(each.listener, each.endpoint, each.asked, each.section) for each in listening if each.endpoint
        )

    @property
    def _sda_listens(self) -> bool:
        """Whether sender authorization has a listener of its own, besides its place at that of the quota."""
        wanted = self.sda.listen != "auto" or self.sda.endpoint != SenderDomainAuthPolicy().endpoint
        return wanted and self.sda.endpoint != self.oqp.endpoint

    @property
    def state_path(self) -> str:
        """File of the embedded state store."""
        return self.state.path or str(Path(self.chapps.data_dir, "state.sqlite3"))

    @property
    def token_path(self) -> str:
        """File of the API token."""
        return self.api.token_file or str(Path(self.chapps.data_dir, "api-token"))

    @property
    def uses_redis(self) -> bool:
        """Whether live state is kept in Redis rather than in the embedded file."""
        return bool(self.redis.server or self.redis.unix_socket or self.redis.sentinel_servers)


SECTIONS: dict[str, type[Any]] = {
    "chapps": Chapps,
    "adapter": PolicyConfigAdapter,
    "redis": Redis,
    "state": State,
    "api": API,
    "log": Log,
    "oqp": OutboundQuotaPolicy,
    "sda": SenderDomainAuthPolicy,
    "grl": GreylistingPolicy,
    "spf": SPFEnforcementPolicy,
    "spf_actions": PostfixSPFActions,
}
