"""Names, ids and numbers as they come in: how each is checked, and brought into the form that is stored."""

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


def _entered_email(text: str) -> str:
    address = unquoted(text)
    if address == text and text.count("@") > 1:
        # Nearly surely two addresses, or a slip.
        raise ValueError("must have quotes around what is before the last @, which holds another")
    return _fitting(normal_email, address, MAX_EMAIL)


def _fitting(normal: Callable[[str, bool], str], text: str, length: int) -> str:
    """The normal form but for letter case, which the book may fold; ``""`` when that or this has no room there."""
    folded, name = normal(text, True), normal(text, False)
    return name if 0 < len(folded) <= length and len(name) <= length else ""


# No control characters: no mail program writes them, and PostgreSQL takes no NUL.
_PLAIN = r"^[^\u0000-\u001f\u007f-\u009f]*$"

# Nearly surely a mistake, and MariaDB takes "a " for "a". Names that are there may have been stored so.
_UNPADDED = AfterValidator(_unpadded)
_UNPADDED_PLAIN: JsonDict = {
    "pattern": r"^[^\u0000-\u001f\u007f-\u009f\s]([^\u0000-\u001f\u007f-\u009f]*[^\u0000-\u001f\u007f-\u009f\s])?$"
}

# What normal_domain and normal_email take, as far as JSON Schema can tell. They take underscores too.
_LABEL = "[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_LAST_LABEL = "[0-9]{0,20}[A-Za-z_]([A-Za-z0-9_-]{0,40}[A-Za-z0-9_])?"
_DOMAIN = rf"({_LABEL}\.)*{_LAST_LABEL}\.?"
_ASCII_DOMAIN: JsonDict = {"pattern": f"^{_DOMAIN}$", "maxLength": MAX_DOMAIN}
_ASCII_EMAIL: JsonDict = {"pattern": f"^[!#-?A-~][ -?A-~]*@{_DOMAIN}$", "maxLength": MAX_EMAIL}
# As Postfix hands it over.
_ASCII_SENDER: JsonDict = {"pattern": f"^[ -~]+@{_DOMAIN}$", "maxLength": MAX_EMAIL}
_IDN: JsonDict = {"format": "idn-hostname", "maxLength": MAX_DOMAIN}
_IDN_EMAIL: JsonDict = {"format": "idn-email", "maxLength": MAX_EMAIL}

_FLAGS = {"true": True, "1": True, "false": False, "0": False}

Id = Annotated[int, Field(ge=1, le=MAX_ID)]
IdOrNone = Annotated[int, Field(ge=0, le=MAX_ID)]
Ids = Annotated[list[Id], Field(max_length=MAX_IDS)]
Text = Annotated[str, Field(max_length=MAX_EMAIL, pattern=_PLAIN)]
UserName = Annotated[
    str,
    Field(
        min_length=1,
        max_length=MAX_USER,
        pattern=_PLAIN,
        description="The name that the user logs in with, as Postfix tells it. Letter case does not count, unless "
        "`fold_case` is off: it is kept in lower case, and a domain after an @ like that of a domain.",
        examples=["alice@example.com"],
    ),
]
EnteredUserName = Annotated[
    UserName,
    Field(json_schema_extra=_UNPADDED_PLAIN),
    _UNPADDED,
    _normal(_entered_user, f"a name of at most {MAX_USER} characters, in the form that is kept"),
]
QuotaName = Annotated[
    str,
    Field(
        min_length=1,
        max_length=32,
        pattern=_PLAIN,
        description="A name to tell it by.",
        examples=["basic"],
        json_schema_extra=_UNPADDED_PLAIN,
    ),
    _UNPADDED,
]
QuotaLimit = Annotated[
    int,
    Field(
        ge=0,
        le=MAX_ID,
        description="Transmissions in the rolling interval. No two quotas have the same.",
        examples=[100],
    ),
]
DomainName = Annotated[
    str,
    Field(
        min_length=1,
        max_length=MAX_DOMAIN,
        description="A domain name. One with other than ASCII letters is kept as A-labels (IDNA), all in lower case.",
        examples=["example.com"],
        json_schema_extra={"anyOf": [_ASCII_DOMAIN, _IDN]},
    ),
    _UNPADDED,
    _normal(normal_domain, "a domain name"),
]
EmailName = Annotated[
    str,
    Field(
        min_length=3,
        max_length=MAX_EMAIL,
        description="A mail address. Its domain is kept like that of a domain, and what is before the last @ in lower "
        "case, unless `fold_case` is off. Quotes around what is before the last @ are left out, as Postfix does; they "
        "are needed where that holds another @.",
        examples=["alice@example.com"],
        json_schema_extra={"anyOf": [_ASCII_EMAIL, _IDN_EMAIL]},
    ),
    _UNPADDED,
    _normal(_entered_email, "a mail address"),
    _UNPADDED,
]
# Of a query: as JSON, or as a digit.
Flag = Annotated[
    bool,
    BeforeValidator(lambda value: _FLAGS.get(value, value) if isinstance(value, str) else value),
    WithJsonSchema({"anyOf": [{"type": "boolean"}, {"enum": [0, 1]}]}),
]
Greylist = Annotated[bool, Field(description="Whether mail to this domain is greylisted.")]
CheckSpf = Annotated[bool, Field(description="Whether SPF decides about mail to this domain, not only adds a header.")]


def _any_of(description: str, *schemas: JsonDict) -> dict[str, Any]:
    return {"type": "string", "description": description, "anyOf": list(schemas)}


def _source(text: str) -> str:
    return normal_email(text, False) if "@" in text else normal_domain(text)


def _client(text: str) -> str:
    bare = text.removeprefix("[").removesuffix("]")
    return bare if client_address(bare) is not None else normal_domain(text)


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
    """What Postfix tells of a client whose address it does not know, and nothing of a client."""
    if text not in ("", "unknown"):
        raise ValueError
    return text


ClientOrNetwork = Annotated[
    str,
    AfterValidator(_client_or_network),
    WithJsonSchema(
        _any_of(
            "An address, a network, or `unknown`, as Postfix calls one that it does not know.",
            {"format": "ipv4"},
            {"format": "ipv6"},
            {"enum": ["", "unknown"]},
            {"pattern": r"^[0-9]{1,3}(\.[0-9]{1,3}){3}/[0-9]+$"},
        )
    ),
]
