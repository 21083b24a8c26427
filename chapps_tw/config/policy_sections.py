"""The sections of the policies."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from chapps_tw.config.actions import acceptance, message, spf_action
from chapps_tw.config.sections import option
from chapps_tw.config.values import (
    Margin,
    boolean,
    choice,
    parse_margin,
    parse_recipients,
    plain,
    seconds,
    separators,
    whole,
)
from chapps_tw.mail.network import Server, parse_host_name, parse_nameservers


class Contradiction(NamedTuple):
    """An option that conflicts with other options of its section.

    :ivar words: the problem and its remedy, worded to follow the option's value.
    :ivar others: names of the other options.
    """

    option: str
    words: str
    others: tuple[str, ...] = ()


class PolicySection:
    """Base class of the sections of policies. Each is a frozen dataclass whose fields are made by :func:`option`.

    :cvar section: name of the section, and of the policy.
    :ivar mode: an option made of :data:`MODE`.
    :ivar on_failure: an option made of :data:`ON_FAILURE`.
    """

    section: ClassVar[str]
    mode: str
    on_failure: str

    def contradictions(self) -> Iterable[Contradiction]:
        """Combinations of options that cannot work."""
        return ()


class _ListeningSection(PolicySection):
    """Section of a policy that has a default listener.

    :cvar listener: name of that listener.
    :cvar asked: its policies, in order.
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
