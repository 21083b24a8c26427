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
    names,
    parse_margin,
    parse_recipients,
    plain,
    seconds,
    separators,
    text,
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
    :cvar policies: its policies, in order.
    """

    listener: ClassVar[str]
    policies: ClassVar[tuple[str, ...]]
    listen_address: str
    listen_port: int
    listen: str

    @property
    def endpoint(self) -> str:
        """Twisted endpoint description, from ``listen`` or from address and port; empty if there is no listener."""
        if self.listen != "auto":
            return self.listen
        address = "127.0.0.1" if self.listen_address == "localhost" else self.listen_address.strip("[]")
        family = "tcp6" if ":" in address else "tcp"
        interface = address.replace(":", r"\:")
        return f"{family}:{self.listen_port}" + (f":interface={interface}" if interface else "")


_LISTEN = "Twisted endpoint; auto uses listen_address and listen_port, empty disables the listener."
MODE = ("enforce, or shadow: decide, log and count, but let mail through.", choice("enforce", "shadow"))
ON_FAILURE = ("defer or accept mail if the state or the database is unavailable.", choice("defer", "accept"))
_TTL = seconds(1, 31536000)

# Placeholders of each policy; retry_in is retry_after in words. For mail that passes, retry_after is 0.
_QUOTA_FIGURES = (
    *("limit", "used", "remaining", "retry_after", "retry_in", "user", "sender"),
    *("limit_name", "window", "level"),
)
_SENDER_FIGURES = ("user", "sender")
_GREYLIST_FIGURES = ("retry_after", "retry_in", "sender", "recipient")
_SPF_ACTION = spf_action("reason")


@dataclass(frozen=True)
class OutboundQuotaPolicy(_ListeningSection):
    section: ClassVar[str] = "OutboundQuotaPolicy"
    listener: ClassVar[str] = "outbound"
    policies: ClassVar[tuple[str, ...]] = ("SenderDomainAuthPolicy", "OutboundQuotaPolicy")
    listen_address: str = option(
        "localhost", "Address of the outbound listener (sender authorization, then quota).", restart=True
    )
    listen_port: int = option("10225", "Port of the outbound listener.", whole(1, 65535), restart=True)
    listen: str = option("auto", _LISTEN, restart=True)
    acceptance_message: str = option(
        "DUNNO", "Answer to mail within the quota. Placeholders as in rejection_message.", acceptance(*_QUOTA_FIGURES)
    )
    rejection_message: str = option(
        "REJECT Rejected - outbound quota fulfilled: {used} of {limit} used, try again in {retry_in}",
        "Answer to mail over the quota; with 450 4.7.1 instead of REJECT, mail clients retry. Placeholders: "
        "{limit} {used} {remaining} {user} {sender} {retry_after} (seconds) {retry_in} (words) {limit_name} {window} "
        "(words) {level} (user, domain, default or domain pool).",
        message(*_QUOTA_FIGURES),
    )
    too_large_message: str = option(
        "REJECT Rejected - this message alone is more than the outbound quota of {limit}",
        "Answer to a message that is larger than the quota. Placeholders as in rejection_message.",
        message(*_QUOTA_FIGURES),
    )
    no_quota_message: str = option(
        "REJECT Rejected - {user} has no quota for outgoing mail; ask your provider",
        "Answer to a user without a quota. Placeholders as in rejection_message.",
        message(*_QUOTA_FIGURES),
    )
    unknown_user_message: str = option(
        "REJECT Rejected - {user} may not send mail here; ask your provider",
        "Answer to a user who is not in the database. Placeholders as in rejection_message.",
        message(*_QUOTA_FIGURES),
    )
    suspended_message: str = option(
        "REJECT Rejected - {user} is suspended from sending mail: {reason}",
        "Answer to a suspended user; if the override says defer, a temporary one with the same text. Placeholders: "
        "{user} {sender} {reason} {retry_after} (seconds) {retry_in} (words).",
        message("user", "sender", "reason", "retry_after", "retry_in"),
    )
    null_sender_ok: bool = option("False", "Accept the null sender if the request names no user.", boolean)
    mode: str = option("enforce", *MODE)
    on_failure: str = option("defer", *ON_FAILURE)
    cache_ttl: float = option("86400", "Seconds that a user's limits are cached.", _TTL)
    default_quota: str = option(
        "",
        "Name of the quota of every user who has none, not even by the domain, whether or not in the database; empty: "
        "such a user cannot send.",
        text,
    )
    warn_at: int = option(
        "80", "Percent of a limit from which on it is almost reached, which is an event; 0 is off.", whole(0, 100)
    )
    reservation_ttl: float = option(
        "600",
        "Seconds after which what was counted at RCPT is given back if neither DATA nor END-OF-MESSAGE follows, where "
        "Postfix asks there too; 0 is off.",
        seconds(0, 86400),
    )
    interval: float = option("86400", "Length of the rolling interval in seconds.", seconds(1, 31536000))
    margin: Margin = option(
        "0.10",
        "How far a message may exceed the quota's number if the user was below it; its other limits are exact: "
        "10 is ten transmissions; 0.10, 10.0 and 10% are a tenth of the limit.",
        parse_margin,
    )
    min_delta: float = option("0", "Minimum seconds between two messages of a user; 0 is off.", seconds(0, 86400))
    min_delta_message: str = option(
        "DEFER_IF_PERMIT Too soon after the message before, try again in {retry_in}",
        "Answer to a message within min_delta. Placeholders as in rejection_message.",
        message(*_QUOTA_FIGURES),
    )
    counting_recipients: bool = option("True", "Count each recipient, not each message.", boolean)


@dataclass(frozen=True)
class SenderDomainAuthPolicy(_ListeningSection):
    section: ClassVar[str] = "SenderDomainAuthPolicy"
    listener: ClassVar[str] = "sender-auth"
    policies: ClassVar[tuple[str, ...]] = ("SenderDomainAuthPolicy",)
    listen_address: str = option(
        "localhost",
        "Address of a separate listener; there is none if address and port are the default or the quota's.",
        restart=True,
    )
    listen_port: int = option("10225", "Port of the separate listener.", whole(1, 65535), restart=True)
    listen: str = option(
        "auto",
        "Twisted endpoint of the separate listener; auto uses address and port as above, empty disables it.",
        restart=True,
    )
    acceptance_message: str = option(
        "DUNNO",
        "Answer to an authorized sender. Placeholders as in rejection_message.",
        acceptance(*_SENDER_FIGURES),
    )
    rejection_message: str = option(
        "REJECT Rejected - {user} is not allowed to send mail as {sender}",
        "Answer to an unauthorized sender. Placeholders: {user} {sender}.",
        message(*_SENDER_FIGURES),
    )
    null_sender_ok: bool = option("False", "Accept the null sender.", boolean)
    mode: str = option("enforce", *MODE)
    on_failure: str = option("defer", *ON_FAILURE)
    cache_ttl: float = option("86400", "Seconds that a verdict is cached.", _TTL)
    own_address: bool = option(
        "False", "A user may send as the address that is the login, also if it is not in the database.", boolean
    )
    subaddress_separators: str = option(
        "+",
        "Characters that start an address extension: with +, who may send as a@c may send as a+b@c. Empty is none.",
        separators,
    )


@dataclass(frozen=True)
class GreylistingPolicy(_ListeningSection):
    section: ClassVar[str] = "GreylistingPolicy"
    listener: ClassVar[str] = "greylisting"
    policies: ClassVar[tuple[str, ...]] = ("GreylistingPolicy",)
    listen_address: str = option("localhost", "Address of the greylisting listener.", restart=True)
    listen_port: int = option("10226", "Port of the greylisting listener.", whole(1, 65535), restart=True)
    listen: str = option("auto", _LISTEN, restart=True)
    acceptance_message: str = option(
        "DUNNO",
        "Answer to mail that passes. Placeholders as in rejection_message.",
        acceptance(*_GREYLIST_FIGURES),
    )
    rejection_message: str = option(
        "DEFER_IF_PERMIT Service temporarily unavailable - greylisted, retry in {retry_in}",
        "Answer to greylisted mail. Placeholders: {retry_after} (seconds) {retry_in} (words) {sender} {recipient}.",
        message(*_GREYLIST_FIGURES),
    )
    null_sender_ok: bool = option("False", "Accept the null sender.", boolean)
    mode: str = option("enforce", *MODE)
    on_failure: str = option("accept", *ON_FAILURE)
    minimum_deferral: float = option("60", "Seconds before a retry of a new tuple passes.", seconds(0, 86400))
    retry_window: float = option("172800", "Seconds after the first attempt within which a retry must come.", _TTL)
    pass_ttl: float = option("3024000", "Seconds that a tuple is kept after it last passed.", _TTL)
    tally_ttl: float = option("3024000", "Seconds that the tally of a client is kept.", _TTL)
    flag_ttl: float = option("86400", "Seconds that a domain's flag is cached.", _TTL)
    whitelist_threshold: int = option("10", "Passed messages that exempt a client; 0 is off.", whole(0, 10000))
    ipv4_prefix: int = option("24", "Prefix length of the network that counts as one IPv4 client.", whole(0, 32))
    ipv6_prefix: int = option("64", "Prefix length of the network that counts as one IPv6 client.", whole(0, 128))
    spf_identity: bool = option(
        "True", "A MAIL FROM domain with SPF pass also identifies the client, so that a pool waits once.", boolean
    )
    exempt_recipients: frozenset[str] = option(
        "abuse@ postmaster@",
        "Recipients that are not greylisted: local@ for every domain, or full addresses.",
        parse_recipients,
    )

    def contradictions(self) -> Iterable[Contradiction]:
        if self.retry_window <= self.minimum_deferral:
            words = (
                f"must be greater than minimum_deferral ({plain(self.minimum_deferral)}), by several hours: a tuple "
                "that expires before a retry is accepted never passes"
            )
            yield Contradiction("retry_window", words, ("minimum_deferral",))


@dataclass(frozen=True)
class SPFEnforcementPolicy(_ListeningSection):
    section: ClassVar[str] = "SPFEnforcementPolicy"
    listener: ClassVar[str] = "inbound"
    policies: ClassVar[tuple[str, ...]] = ("SPFEnforcementPolicy", "GreylistingPolicy")
    listen_address: str = option("localhost", "Address of the inbound listener (SPF, then greylisting).", restart=True)
    listen_port: int = option("10227", "Port of the inbound listener.", whole(1, 65535), restart=True)
    listen: str = option("auto", _LISTEN, restart=True)
    null_sender_ok: bool = option("False", "Accept the null sender without an SPF check.", boolean)
    mode: str = option("enforce", *MODE)
    on_failure: str = option("accept", *ON_FAILURE)
    cache_ttl: float = option("86400", "Seconds that a domain's flag is cached.", _TTL)
    spf_query_timeout: float = option("20", "Timeout of the whole SPF check in seconds.", seconds(0.1, 100))
    nameservers: tuple[Server, ...] = option(
        "", "Name servers: address[:port] ...; empty is the system's.", parse_nameservers
    )
    receiver: str = option("", "Name of this host in Received-SPF; empty is the system's host name.", parse_host_name)
    void_lookup_limit: int = option("2", "Maximum number of SPF terms with void lookups (RFC 7208).", whole(0, 100))
    record_size_limit: int = option(
        "16384", "Maximum size of an SPF record in octets; longer ones are a permerror.", whole(512, 65535)
    )
    answer_size_limit: int = option(
        "65535", "Maximum size of a DNS answer in octets; longer ones are discarded.", whole(4096, 65535)
    )
    answer_record_limit: int = option(
        "512", "Maximum number of records in a DNS answer; answers with more are discarded.", whole(16, 4096)
    )


@dataclass(frozen=True)
class RateLimitPolicy(_ListeningSection):
    section: ClassVar[str] = "RateLimitPolicy"
    listener: ClassVar[str] = "limits"
    policies: ClassVar[tuple[str, ...]] = ("RateLimitPolicy",)
    listen_address: str = option(
        "localhost", "Address of the listener of limits; there is one if there are limits.", restart=True
    )
    listen_port: int = option("10228", "Port of the listener of limits.", whole(1, 65535), restart=True)
    listen: str = option("auto", _LISTEN, restart=True)
    mode: str = option("enforce", *MODE)
    on_failure: str = option("defer", *ON_FAILURE)
    reservation_ttl: float = option(
        "600",
        "Seconds after which the cost of recipients whose message is not sent is given back; 0 is never.",
        seconds(0, 86400),
    )
    limits: tuple[str, ...] = option("", "Names of the [Limit NAME] that apply; empty is all.", names, ", ")


@dataclass(frozen=True)
class PostfixSPFActions:
    section: ClassVar[str] = "PostfixSPFActions"
    passing: str = option(
        "prepend",
        "Action for pass: prepend, greylist, dunno, okay, or a Postfix action. Placeholder: {reason}.",
        _SPF_ACTION,
    )
    fail: str = option("550 5.7.1 SPF check failed: {reason}", "Action for fail.", _SPF_ACTION)
    softfail: str = option("greylist", "Action for softfail.", _SPF_ACTION)
    none_neutral: str = option("greylist", "Action for none and neutral.", _SPF_ACTION)
    temperror: str = option(
        "451 4.4.3 SPF record(s) temporarily unavailable: {reason}", "Action for temperror.", _SPF_ACTION
    )
    permerror: str = option("550 5.5.2 SPF record(s) are malformed: {reason}", "Action for permerror.", _SPF_ACTION)
