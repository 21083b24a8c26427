"""Field types of requests: how names, ids and numbers are validated and normalized."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_network
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema
from pydantic.config import JsonDict

from chapps_tw.mail.addresses import MAX_DOMAIN, MAX_EMAIL, MAX_USER, normal_domain, normal_email, normal_name, unquoted
from chapps_tw.mail.network import client_address

MAX_ID = 2**31 - 1
MAX_IDS = 1000


def _normal(form: Callable[[str], str], what: str) -> AfterValidator:
    def check(text: str) -> str:
        name = form(text)
        if not name:
            raise ValueError(f"must be {what}")
        return name

    return AfterValidator(check)


def _unpadded(text: str) -> str:
    if text != text.strip():
        raise ValueError("must not begin or end with white space")
    return text


def _entered_user(text: str) -> str:
    return _fitting(normal_name, text, MAX_USER)


def entered_email(text: str) -> str:
    """Return the normal form of a mail address, without case folding; ``""`` if the book cannot contain it.

    :raises ValueError: if it may be two addresses.
    """
    address = unquoted(text)
    if address == text and text.count("@") > 1:
        # Almost certainly two addresses, or a typo.
        raise ValueError("must have quotes around the part before the last @, since it contains another @")
    return _fitting(normal_email, address, MAX_EMAIL)


def _fitting(normal: Callable[[str, bool], str], text: str, length: int) -> str:
    """Return the normal form without case folding, which the book may apply; ``""`` if either form is too long."""
    folded, name = normal(text, True), normal(text, False)
    return name if 0 < len(folded) <= length and len(name) <= length else ""


# No control characters: no mail program sends them, and PostgreSQL rejects NUL.
PLAIN = r"^[^\u0000-\u001f\u007f-\u009f]*$"

# Padding is almost certainly a mistake, and MariaDB treats "a " as equal to "a". Existing names may have it.
UNPADDED = AfterValidator(_unpadded)
UNPADDED_PLAIN: JsonDict = {
    "pattern": r"^[^\u0000-\u001f\u007f-\u009f\s]([^\u0000-\u001f\u007f-\u009f]*[^\u0000-\u001f\u007f-\u009f\s])?$"
}

# What normal_domain and normal_email accept, as far as JSON Schema can express it. They accept underscores too.
_LABEL = "[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_LAST_LABEL = "[0-9]{0,20}[A-Za-z_]([A-Za-z0-9_-]{0,40}[A-Za-z0-9_])?"
_DOMAIN = rf"({_LABEL}\.)*{_LAST_LABEL}\.?"
_ASCII_DOMAIN: JsonDict = {"pattern": f"^{_DOMAIN}$", "maxLength": MAX_DOMAIN}
_ASCII_EMAIL: JsonDict = {"pattern": f"^[!#-?A-~][ -?A-~]*@{_DOMAIN}$", "maxLength": MAX_EMAIL}
# As Postfix passes it.
_ASCII_SENDER: JsonDict = {"pattern": f"^[ -~]+@{_DOMAIN}$", "maxLength": MAX_EMAIL}
_IDN: JsonDict = {"format": "idn-hostname", "maxLength": MAX_DOMAIN}
_IDN_EMAIL: JsonDict = {"format": "idn-email", "maxLength": MAX_EMAIL}

_FLAGS = {"true": True, "1": True, "false": False, "0": False}

Id = Annotated[int, Field(ge=1, le=MAX_ID)]
IdOrNone = Annotated[int, Field(ge=0, le=MAX_ID)]
Ids = Annotated[list[Id], Field(max_length=MAX_IDS)]
Text = Annotated[str, Field(max_length=MAX_EMAIL, pattern=PLAIN)]
UserName = Annotated[
    str,
    Field(
        min_length=1,
        max_length=MAX_USER,
        pattern=PLAIN,
        description="The login name, as Postfix reports it. Unless `fold_case` is off it is case-insensitive and "
        "stored in lower case. A domain after an @ is stored like a domain name.",
        examples=["alice@example.com"],
    ),
]
EnteredUserName = Annotated[
    UserName,
    Field(json_schema_extra=UNPADDED_PLAIN),
    UNPADDED,
    _normal(_entered_user, f"a name of at most {MAX_USER} characters in its stored form"),
]
QuotaName = Annotated[
    str,
    Field(
        min_length=1,
        max_length=32,
        pattern=PLAIN,
        description="A unique name.",
        examples=["basic"],
        json_schema_extra=UNPADDED_PLAIN,
    ),
    UNPADDED,
]
# As stored, which may be padded.
StoredQuotaName = Annotated[str, Field(min_length=1, max_length=32, pattern=PLAIN, description="The name, exactly.")]
QuotaLimit = Annotated[
    int,
    Field(
        ge=0,
        le=MAX_ID,
        description="Transmissions in the interval of `[OutboundQuotaPolicy]`; null if only its limits count.",
        examples=[100],
    ),
]
DomainName = Annotated[
    str,
    Field(
        min_length=1,
        max_length=MAX_DOMAIN,
        description="A domain name. Stored in lower case, an internationalized one as A-labels (IDNA).",
        examples=["example.com"],
        json_schema_extra={"anyOf": [_ASCII_DOMAIN, _IDN]},
    ),
    UNPADDED,
    _normal(normal_domain, "a domain name"),
]
EmailName = Annotated[
    str,
    Field(
        min_length=3,
        max_length=MAX_EMAIL,
        description="A mail address. The domain is stored like a domain name, the local part in lower case unless "
        "`fold_case` is off. Quotes around the local part are removed, as Postfix does; they are required if it "
        "contains an @.",
        examples=["alice@example.com"],
        json_schema_extra={"anyOf": [_ASCII_EMAIL, _IDN_EMAIL]},
    ),
    UNPADDED,
    _normal(entered_email, "a mail address"),
    UNPADDED,
]
PlanOfEach = Annotated[
    int,
    Field(
        ge=0,
        le=MAX_ID,
        description="Id of the quota of each user of this domain who has none of his own, new users included. "
        "0 removes it.",
        examples=[1],
    ),
]
PlanOfPool = Annotated[
    int,
    Field(
        ge=0,
        le=MAX_ID,
        description="Id of the quota that all users of this domain share, in addition to their own. 0 removes it.",
        examples=[2],
    ),
]
# A boolean in a query: true, false, 1 or 0.
Flag = Annotated[
    bool,
    BeforeValidator(lambda value: _FLAGS.get(value, value) if isinstance(value, str) else value),
    WithJsonSchema({"anyOf": [{"type": "boolean"}, {"enum": [0, 1]}]}),
]
Greylist = Annotated[bool, Field(description="Whether mail to this domain is greylisted.")]
CheckSpf = Annotated[
    bool, Field(description="Whether SPF is enforced for mail to this domain. If not, it only adds a header.")
]


def _any_of(description: str, *schemas: JsonDict) -> dict[str, Any]:
    return {"type": "string", "description": description, "anyOf": list(schemas)}


def _source(text: str) -> str:
    return normal_email(text, False) if "@" in text else normal_domain(text)


def _client(text: str) -> str:
    bare = text.removeprefix("[").removesuffix("]")
    return bare if client_address(bare) is not None else normal_domain(text)


# As stored, or with the quotes that Postfix removes.
StoredEmail = Annotated[
    str,
    _normal(lambda text: normal_email(unquoted(text), False), "a mail address"),
    WithJsonSchema(_any_of("A mail address.", _ASCII_SENDER, _IDN_EMAIL)),
]
Source = Annotated[
    str,
    _normal(_source, "a domain name or a mail address"),
    WithJsonSchema(_any_of("A domain name or a mail address.", _ASCII_DOMAIN, _IDN, _ASCII_SENDER, _IDN_EMAIL)),
]
Client = Annotated[
    str,
    _normal(_client, "an IPv4 or IPv6 address, or a domain name"),
    WithJsonSchema(
        _any_of(
            "An address, or the domain that SPF passed for the client.",
            {"format": "ipv4"},
            {"format": "ipv6"},
            _ASCII_DOMAIN,
            _IDN,
        )
    ),
]


def _client_or_network(text: str) -> str:
    bare = text.removeprefix("[").removesuffix("]")
    try:
        return str(ip_network(bare, strict=False)) if "/" in bare else str(client_address(bare) or _unknown(bare))
    except ValueError:
        raise ValueError("must be an IPv4 or IPv6 address or network, as 192.0.2.0/24") from None


def _unknown(text: str) -> str:
    """Accept ``unknown``, as Postfix reports a client whose address it does not know, and the empty string."""
    if text not in ("", "unknown"):
        raise ValueError
    return text


ClientOrNetwork = Annotated[
    str,
    AfterValidator(_client_or_network),
    WithJsonSchema(
        _any_of(
            "An address, a network, or `unknown`, which Postfix reports if it does not know the address.",
            {"format": "ipv4"},
            {"format": "ipv6"},
            {"enum": ["", "unknown"]},
            {"pattern": r"^[0-9]{1,3}(\.[0-9]{1,3}){3}/[0-9]+$"},
        )
    ),
]
