"""The arguments of ``chapps-cli``."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping
from typing import Any

from chapps_tw.cli.ask import SECONDS
from chapps_tw.config.load import DEFAULT_PATH

Commands = Mapping[str, Callable[..., None]]


def make_parser(commands: Commands) -> argparse.ArgumentParser:
    """The parser; what it returns has the command's function, by its name in ``commands``, as ``command``."""
    parser = argparse.ArgumentParser("chapps-cli", description="Looks after a CHAPPS-TW policy service.")
    _add_config(parser, None)
    names = parser.add_subparsers(required=True, metavar="COMMAND")
    _add(names, "check-config", commands, "say everything that is wrong with the configuration")
    _add(names, "version", commands, "print the version")
    _add_admin(names, commands)
    _add_token(names, commands)
    _add_ask(names, commands)
    return parser


def _add_config(parser: argparse.ArgumentParser, default: str | None) -> None:
    parser.add_argument(
        "--config",
        metavar="FILE",
        default=default,
        help=f"the configuration; else $CHAPPS_CONFIG, else {DEFAULT_PATH}, else the built-in defaults",
    )


def _add(names: Any, name: str, commands: Commands, help: str, family: str = "") -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = names.add_parser(name, help=help, description=help[0].upper() + help[1:] + ".")
    # Before or after the command: one that is not given here leaves the other alone.
    _add_config(parser, argparse.SUPPRESS)
    parser.set_defaults(command=commands[f"{family} {name}".strip()])
    return parser


def _add_admin(names: Any, commands: Commands) -> None:
    parser = names.add_parser("admin", help="set up the database, write the configuration, make a passcode")
    _add_config(parser, argparse.SUPPRESS)
    jobs = parser.add_subparsers(required=True, metavar="COMMAND")
    setup = _add(jobs, "db-setup", commands, "make the database's tables, or bring them up to date", "admin")
    setup.add_argument(
        "--dry-run", action="store_true", help="change nothing; say which names would be changed or told"
    )
    _add(jobs, "add-examples", commands, "add two example users to the database", "admin")
    _add(jobs, "passcode", commands, "make the hash of a passcode for [CHAPPS] password", "admin")
    flush = _add(jobs, "flush-config", commands, "write every option with its value and help", "admin")
    flush.add_argument("--to", metavar="FILE", help=f"where; else the file that was read, else {DEFAULT_PATH}")


def _add_token(names: Any, commands: Commands) -> None:
    parser = names.add_parser("token", help="make, list and revoke tokens of the HTTP API")
    _add_config(parser, argparse.SUPPRESS)
    jobs = parser.add_subparsers(required=True, metavar="COMMAND")
    _add(jobs, "show", commands, "print the first token, which the service made at its first start", "token")
    _add(jobs, "list", commands, "list the tokens", "token")
    create = _add(jobs, "create", commands, "make a token and print it, this once", "token")
    create.add_argument("name", metavar="NAME")
    create.add_argument("--read-only", action="store_true", help="the token may look, and change nothing")
    revoke = _add(jobs, "revoke", commands, "make a token useless, at once", "token")
    revoke.add_argument("name", metavar="NAME")


def _add_ask(names: Any, commands: Commands) -> None:
    parser = _add(names, "ask", commands, "put one question to a running service, as Postfix would at RCPT")
    parser.epilog = (
        "What is answered is counted as for a message of Postfix: quotas are spent, greylisting begins. "
        "To look without that, ask /live/explain/ of the HTTP API."
    )
    parser.add_argument("--user", default="", help="who has logged in (sasl_username)")
    parser.add_argument("--sender", default="", help="envelope sender; empty is the null sender")
    parser.add_argument("--recipient", default="", help="envelope recipient")
    parser.add_argument("--client", default="192.0.2.1", metavar="ADDRESS", help="IP address of the SMTP client")
    parser.add_argument("--listener", default="", help="of the configuration; else one that fits: with or without user")
    parser.add_argument("--host", help="where a service listens, in place of the configuration (127.0.0.1 with --port)")
    parser.add_argument("--port", type=_port, help="its port (10225 with --host)")
    parser.add_argument("--socket", metavar="PATH", help="its unix socket instead")
    parser.add_argument("--timeout", type=_seconds, default=SECONDS, metavar="SECONDS", help=f"({SECONDS:g})")
    parser.add_argument("others", nargs="*", metavar="NAME=VALUE", help="any other request attribute")


def _port(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"{text!r} is no port: 1 to 65535")
    return int(text)


def _seconds(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,5}(\.[0-9]{1,6})?|\.[0-9]{1,6}", text) or not float(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0")
    return float(text)
