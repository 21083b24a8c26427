"""The arguments of ``chapps-cli``."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping
from typing import Any

from chapps_tw.cli.ask import DEFAULT_TIMEOUT
from chapps_tw.config.load import DEFAULT_PATH
from chapps_tw.security.tokens import Scope

Commands = Mapping[str, Callable[..., None]]


def make_parser(commands: Commands) -> argparse.ArgumentParser:
    """Return the parser. It sets ``command`` to the function in ``commands``."""
    parser = argparse.ArgumentParser("chapps-cli", description="Manages a CHAPPS-TW policy service.")
    _add_config(parser, None)
    names = parser.add_subparsers(required=True, metavar="COMMAND")
    _add(names, "check-config", commands, "check the configuration and report every problem")
    _add(names, "version", commands, "print the version")
    _add_admin(names, commands)
    _add_token(names, commands)
    _add_ask(names, commands)
    _add_notify(names, commands)
    return parser


def _add_config(parser: argparse.ArgumentParser, default: str | None) -> None:
    parser.add_argument(
        "--config",
        metavar="FILE",
        default=default,
        help=f"configuration file; default: $CHAPPS_CONFIG, else {DEFAULT_PATH}, else the built-in defaults",
    )


def _add(names: Any, name: str, commands: Commands, help: str, family: str = "") -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = names.add_parser(name, help=help, description=help[0].upper() + help[1:] + ".")
    # --config may stand before or after the command: SUPPRESS keeps the one before.
    _add_config(parser, argparse.SUPPRESS)
    parser.set_defaults(command=commands[f"{family} {name}".strip()])
    return parser


def _add_admin(names: Any, commands: Commands) -> None:
    parser = names.add_parser("admin", help="set up the database, write the configuration, hash a passcode")
    _add_config(parser, argparse.SUPPRESS)
    subcommands = parser.add_subparsers(required=True, metavar="COMMAND")
    setup = _add(subcommands, "db-setup", commands, "create or upgrade the database's tables", "admin")
    setup.add_argument(
        "--dry-run", action="store_true", help="change nothing; list the names that would be changed or reported"
    )
    _add(subcommands, "add-examples", commands, "add two example users to the database", "admin")
    _add(subcommands, "passcode", commands, "hash a passcode for [CHAPPS] password", "admin")
    flush = _add(subcommands, "flush-config", commands, "write every option with its value and help", "admin")
    flush.add_argument(
        "--to", metavar="FILE", help=f"output file; default: the file that was read, else {DEFAULT_PATH}"
    )


def _add_token(names: Any, commands: Commands) -> None:
    parser = names.add_parser("token", help="create, list and revoke tokens of the HTTP API")
    _add_config(parser, argparse.SUPPRESS)
    subcommands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add(subcommands, "show", commands, "print the first token, which the service created at its first start", "token")
    _add(subcommands, "list", commands, "list the tokens", "token")
    create = _add(subcommands, "create", commands, "create a token and print it, this once", "token")
    create.add_argument("name", metavar="NAME")
    create.set_defaults(scope=Scope.FULL)
    scope = create.add_mutually_exclusive_group()
    scope.add_argument(
        "--scope",
        choices=[*Scope],
        help="read: change nothing; operator: reset, suspend and exempt, as a help desk does; full (default): all",
    )
    scope.add_argument(
        "--read-only", action="store_const", dest="scope", const=Scope.READ, help="the same as --scope read"
    )
    revoke = _add(subcommands, "revoke", commands, "revoke a token with immediate effect", "token")
    revoke.add_argument("name", metavar="NAME")


def _add_ask(names: Any, commands: Commands) -> None:
    parser = _add(names, "ask", commands, "send one request to a running service, as Postfix would at RCPT")
    parser.epilog = (
        "The request counts like a real message: it spends quota and starts greylisting. "
        "To test without side effects, use /live/explain/ of the HTTP API."
    )
    parser.add_argument("--user", default="", help="the authenticated user (sasl_username)")
    parser.add_argument("--sender", default="", help="envelope sender; empty is the null sender")
    parser.add_argument("--recipient", default="", help="envelope recipient")
    parser.add_argument("--client", default="192.0.2.1", metavar="ADDRESS", help="IP address of the SMTP client")
    parser.add_argument(
        "--listener", default="", help="configured listener; default: outbound with --user, else inbound"
    )
    parser.add_argument("--host", help="host of the service, instead of a configured listener (127.0.0.1 with --port)")
    parser.add_argument("--port", type=_port, help="port of the service (10225 with --host)")
    parser.add_argument("--socket", metavar="PATH", help="unix socket of the service")
    timeout_help = f"default: {DEFAULT_TIMEOUT:g}"
    parser.add_argument("--timeout", type=_seconds, default=DEFAULT_TIMEOUT, metavar="SECONDS", help=timeout_help)
    parser.add_argument("others", nargs="*", metavar="NAME=VALUE", help="any other request attribute")


def _add_notify(names: Any, commands: Commands) -> None:
    parser = names.add_parser("notify", help="test the notices")
    _add_config(parser, argparse.SUPPRESS)
    subcommands = parser.add_subparsers(required=True, metavar="COMMAND")
    help = "let the running service send a test to the administrator and to the webhook"
    _add(subcommands, "test", commands, help, "notify")


def _port(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port (1 to 65535)")
    return int(text)


def _seconds(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,5}(\.[0-9]{1,6})?|\.[0-9]{1,6}", text) or not float(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number of seconds")
    return float(text)
