"""The sections of chapps.ini that are no policy's, and what an option is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from chapps_tw.config.actions import message
from chapps_tw.config.values import (
    Secret,
    attribute,
    boolean,
    choice,
    encoding,
    host,
    host_names,
    required,
    seconds,
    text,
    whole,
)
from chapps_tw.mail.network import HeloEntry, Network, parse_helo_whitelist, parse_networks


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
