"""Commands and groups of commands, with the options that all of them have."""

from __future__ import annotations

import re
from typing import Any, Final

import click

from chapps_tw.cli.session import Session

# Keep in step with chapps_tw.config.load, which takes long to import.
DEFAULT_PATH: Final = "/etc/chapps/chapps.ini"

pass_session = click.make_pass_decorator(Session)


def _keep(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    """Store an option in the session, so that it may stand before or after a command; the last one wins."""
    if value is not None:
        setattr(context.obj, str(parameter.name), value)


def _keep_format(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        context.obj.format = parameter.name


CONFIG: Final = click.Option(
    ["--config"],
    metavar="FILE",
    callback=_keep,
    expose_value=False,
    help=f"Configuration file; default: $CHAPPS_CONFIG, else {DEFAULT_PATH}, else the built-in defaults.",
)
CONNECTION: Final = (
    CONFIG,
    click.Option(
        ["--url"],
        metavar="URL",
        callback=_keep,
        expose_value=False,
        help="HTTP API, such as http://127.0.0.1:8080 or unix:/PATH; default: $CHAPPS_URL, else [API] listen.",
    ),
    click.Option(
        ["--token-file"],
        metavar="FILE",
        callback=_keep,
        expose_value=False,
        help="File of the token; default: $CHAPPS_TOKEN_FILE, else, without --url, the one of the configuration.",
    ),
)
FORMATS: Final = tuple(
    click.Option([f"--{name}"], is_flag=True, callback=_keep_format, expose_value=False, help=f"Print {name.upper()}.")
    for name in ("json", "csv")
)


class Local(click.Command):
    """A command that works without the service."""

    common: tuple[click.Parameter, ...] = (CONFIG,)

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        *own, help = super().get_params(ctx)
        return [*own, *self.common, help]


class Remote(Local):
    """A command that calls the HTTP API, and prints what it answers."""

    common = (*FORMATS, *CONNECTION)


class Acting(Local):
    """A command that calls the HTTP API, and has no output but sentences."""

    common = CONNECTION


class Group(click.Group):
    """A group of commands."""

    command_class = Remote
    group_class = type

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        *own, help = super().get_params(ctx)
        return [*own, *CONNECTION, help]


class Seconds(click.ParamType[float]):
    """A positive number of seconds."""

    name = "seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        if not re.fullmatch(r"[0-9]{1,5}(\.[0-9]{1,6})?|\.[0-9]{1,6}", value) or not float(value):
            self.fail(f"{value!r} is not a positive number of seconds", param, ctx)
        return float(value)
