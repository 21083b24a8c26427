"""The sections of chapps.ini other than those of policies, and the declaration of options."""

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
    kept_time,
    node_name,
    required,
    seconds,
    text,
    whole,
)
from chapps_tw.mail.durations import Duration
from chapps_tw.mail.network import HeloEntry, Network, parse_helo_whitelist, parse_networks


def option(
    default: str, help: str, parse: Callable[[str], Any] = text, separator: str = " ", *, restart: bool = False
) -> Any:
    """Declare an option: its default as text, one line of help, and its parser.

    :param separator: separates the values of a list when it is written.
    :param restart: whether a change takes effect after a restart only, not when the configuration is read again.
    """
    metadata = {"default": default, "help": help, "parse": parse, "separator": separator, "restart": restart}
    return field(default_factory=lambda: parse(default), metadata=metadata)


@dataclass(frozen=True)
class Chapps:
    section: ClassVar[str] = "CHAPPS"
    payload_encoding: str = option("utf-8", "Encoding of Postfix requests; undecodable bytes are preserved.", encoding)
    user_key: str = option("sasl_username", "Request attribute that names the user.", attribute)
    require_user_key: bool = option("True", "Do not use other attributes if user_key is empty.", boolean)
    fold_case: bool = option(
        "True", "Compare users and addresses without case; run admin db-setup after changing it.", boolean, restart=True
    )
    no_user_key_response: str = option(
        "REJECT Rejected - Authentication failed", "Answer to a request that names no user.", message()
    )
    password: Secret = option(
        "", "Passcode hash for writing the configuration over HTTP (chapps-cli admin passcode).", Secret
    )
    listener_backlog: int = option(
        "100", "Maximum number of pending connections of a listener.", whole(1, 65535), restart=True
    )
    helo_whitelist: tuple[HeloEntry, ...] = option(
        "", "name[:address][;...]: clients that skip greylisting and SPF; IPv6 in brackets.", parse_helo_whitelist, "; "
    )
    trusted_networks: tuple[Network, ...] = option(
        "127.0.0.0/8 ::1/128", "Clients that skip greylisting and SPF: address[/bits] ...", parse_networks
    )
    data_dir: str = option(
        "/var/lib/chapps", "Directory of the SQLite files and the API token.", required, restart=True
    )
    request_timeout: float = option(
        "2", "Seconds after which on_failure answers a request.", seconds(0.1, 60), restart=True
    )
    node: str = option("", "Name of this node in the history; empty is the host name.", node_name, restart=True)
    processes: int = option(
        "1",
        "Processes that answer Postfix on the same ports, about one per core; more than one needs Redis.",
        whole(1, 64),
        restart=True,
    )


@dataclass(frozen=True)
class PolicyConfigAdapter:
    section: ClassVar[str] = "PolicyConfigAdapter"
    adapter: str = option(
        "sqlite",
        "sqlite, postgresql or mariadb (mysql).",
        choice("sqlite", "postgresql", "mariadb", "mysql"),
        restart=True,
    )
    db_host: str = option("localhost", "Name, address or unix socket of the database server.", host, restart=True)
    db_port: int = option("0", "Port of the database server; 0 is its default port.", whole(0, 65535), restart=True)
    db_name: str = option(
        "chapps",
        "Name of the database; for sqlite, an absolute path, or NAME for data_dir/NAME.sqlite3.",
        required,
        restart=True,
    )
    db_user: str = option("chapps", "Database user.", restart=True)
    db_pass: Secret = option("", "Password of the database user.", Secret, restart=True)
    db_pass_file: str = option("", "File that contains the password, instead of db_pass.", restart=True)
    db_url: Secret = option("", "SQLAlchemy URL; overrides the options above.", Secret, restart=True)
    pool_size: int = option("8", "Maximum number of database connections.", whole(1, 100), restart=True)
    refresh: float = option(
        "60",
        "Seconds between comparisons of a cached value with the database; while it is unavailable, cache_ttl applies.",
        seconds(1, 86400),
    )
    audit_days: int = option("365", "Days for which the audit trail is kept.", whole(1, 36500))


@dataclass(frozen=True)
class Redis:
    section: ClassVar[str] = "Redis"
    server: str = option(
        "", "Redis server. Without a server or Sentinels, the state is a SQLite file.", host, restart=True
    )
    port: int = option("6379", "Port of the Redis server.", whole(1, 65535), restart=True)
    unix_socket: str = option("", "Path of the server's unix socket; overrides server and port.", restart=True)
    username: str = option("", "ACL user.", restart=True)
    password: Secret = option("", "Password.", Secret, restart=True)
    password_file: str = option("", "File that contains the password, instead of password.", restart=True)
    db: int = option("0", "Database number.", whole(0, 65535), restart=True)
    tls: bool = option(
        "False", "Use TLS for Redis and Sentinels, and verify their certificates.", boolean, restart=True
    )
    ca_file: str = option("", "PEM file with CA certificates; empty is the system's.", restart=True)
    sentinel_servers: str = option("", "Sentinels: host:port host:port ...", restart=True)
    sentinel_dataset: str = option("", "Name of the master that the Sentinels monitor.", restart=True)
    sentinel_username: str = option("", "ACL user on the Sentinels.", restart=True)
    sentinel_password: Secret = option("", "Password on the Sentinels.", Secret, restart=True)
    sentinel_password_file: str = option(
        "", "File that contains the password, instead of sentinel_password.", restart=True
    )
    pool_size: int = option("4", "Maximum number of connections for commands.", whole(1, 64), restart=True)
    key_prefix: str = option("chapps", "Prefix of every key.", required, restart=True)


@dataclass(frozen=True)
class State:
    section: ClassVar[str] = "State"
    path: str = option("", "SQLite file of the state; empty is data_dir/state.sqlite3.", restart=True)


@dataclass(frozen=True)
class API:
    section: ClassVar[str] = "API"
    listen: str = option(
        "tcp:8080:interface=127.0.0.1", "Twisted endpoint of the HTTP API; empty turns it off.", restart=True
    )
    auth: str = option(
        "token", "token or none; none requires a loopback address or unix socket.", choice("token", "none")
    )
    token_file: str = option("", "File of the API token; empty is data_dir/api-token.")
    hosts: tuple[str, ...] = option(
        "localhost 127.0.0.1 [::1]", "Names accepted in the Host header, without port.", host_names
    )
    open_ready: bool = option(
        "False",
        "Answer /ready without a token to loopback addresses. A reverse proxy on this host connects from one, too.",
        boolean,
    )


@dataclass(frozen=True)
class Log:
    section: ClassVar[str] = "Log"
    format: str = option("text", "Format of the decision log: text or json.", choice("text", "json"))
    file: str = option("-", "File of the decision log; - is standard output, empty is none.")


@dataclass(frozen=True)
class History:
    section: ClassVar[str] = "History"
    record: str = option("all", "Decisions to keep: all, refused or none.", choice("all", "refused", "none"))
    keep: Duration = option("30d", "How long they are kept, such as 12h, 30d or 26w.", kept_time)
    max_size: int = option(
        "4096",
        "Size in MiB beyond which the oldest are removed; on a database server, by estimate.",
        whole(128, 10_000_000),
    )
