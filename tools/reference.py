"""The generated parts of the reference: settings, HTTP API, commands, reasons and metrics, as Markdown.

Each is made from what the service itself uses, so that none can differ from it.
"""

from __future__ import annotations

import inspect
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any
from unittest.mock import Mock

import click
from prometheus_client import Metric, ProcessCollector

from chapps_tw import __version__
from chapps_tw.application import gauges
from chapps_tw.application.application import Application
from chapps_tw.cli.main import main
from chapps_tw.config.limits import RateLimit
from chapps_tw.config.load import load, options
from chapps_tw.config.settings import SECTIONS, Listener
from chapps_tw.mail.decision import Decision, Reason
from chapps_tw.observe.metrics import Metrics, Values
from chapps_tw.policies.registry import BUILT_IN
from chapps_tw.rest import openapi

# Columns of the help of commands: as wide as a code block of the site is on a desktop.
_COLUMNS = 88


def settings() -> str:
    """Return a table of options for each section of the configuration file."""
    named = [(f"{kind.section} NAME", kind) for kind in (RateLimit, Listener)]
    sections = [*((kind.section, kind) for kind in SECTIONS.values()), *named]
    return "\n".join(_section(title, kind) for title, kind in sections)


def _section(title: str, kind: type[Any]) -> str:
    rows = []
    for name, metadata in options(kind):
        anchor = f"{kind.section}-{name}".lower()
        default = f"`{metadata['default']}`" if metadata["default"] else ""
        rows.append((f"`{name}`{{ #{anchor} }}", default, _escaped(metadata["help"])))
    return f"## [{title}] {{ #{kind.section.lower()} }}\n\n{_table(('option', 'default', 'meaning'), rows)}"


def http_api() -> str:
    """Return a table of routes for each tag of the OpenAPI document."""
    document = api_document()
    found = ""
    for tag in document["tags"]:
        rows = [
            _route(method, path, each) for method, path, each in operations(document) if tag["name"] in each["tags"]
        ]
        table = _table(("route", "does", "scope", "parameters"), rows)
        found += f"## {tag['name'].capitalize()}\n\n{_escaped(tag['description'])}\n\n{table}\n"
    return found


def api_document() -> dict[str, Any]:
    """Return the OpenAPI document of a service with the default settings."""
    # It is installed when it is imported.
    from twisted.internet import reactor

    with tempfile.TemporaryDirectory() as directory:
        application = Application(load("", {"CHAPPS_CHAPPS_DATA_DIR": directory}), reactor)
        return openapi.document(application.api.routes, __version__)


def operations(document: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Yield method, path and description of each operation."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def _route(method: str, path: str, operation: Mapping[str, Any]) -> tuple[str, ...]:
    scope = f"`{operation['security'][0]['token'][0]}`" if operation["security"] else "no token"
    parameters = [f"`{each['name']}`" for each in operation.get("parameters", ())]
    if "requestBody" in operation:
        parameters.append("a body")
    return f"`{method} {path}`", _escaped(operation["summary"]), scope, ", ".join(parameters)


def commands() -> str:
    """Return the help of each command."""
    return "\n".join(_helps(main, click.Context(main, info_name="chapps-cli", **main.context_settings)))


def _helps(command: click.Command, context: click.Context) -> Iterator[str]:
    context.terminal_width = _COLUMNS
    if context.parent is not None:
        level = "#" * (2 if context.parent.parent is None else 3)
        yield f"{level} {context.command_path.removeprefix('chapps-cli ')}\n"
    yield f"```text\n{command.get_help(context)}\n```\n"
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from _helps(below, click.Context(below, info_name=name, parent=context))


def reasons() -> str:
    """Return a table of the reasons of decisions."""
    rows = [(f"`{each.value}`{{ #{each.value} }}", _escaped(each.meaning)) for each in BUILT_IN.reasons]
    return _table(("reason", "meaning"), rows)


def metrics() -> str:
    """Return a table of the metrics."""
    rows = [
        (f"`{_exposed(each)}`", each.type, _labels(each), _escaped(each.documentation))
        for each in sorted(families(), key=lambda each: each.name)
    ]
    return _table(("metric", "type", "labels", "meaning"), rows)


class _Listed(Metrics):
    """Metrics with one sample each, which shows the labels."""

    def add_gauge(self, name: str, help: str, labels: tuple[str, ...], read: Callable[[], Values]) -> None:
        super().add_gauge(name, help, labels, lambda: [(labels, 0)])

    def add_counter(self, name: str, help: str, labels: tuple[str, ...], read: Callable[[], Values]) -> None:
        super().add_counter(name, help, labels, lambda: [(labels, 0)])


def families() -> list[Metric]:
    """Return all metrics that a service may have, with a sample each."""
    listed = _Listed(__version__, lambda: 0.0)
    listed.answered("", [Decision("DUNNO", Reason.WITHIN_QUOTA, "")], 0)
    listed.limit_events[""] += 1
    listed.calls("", "")
    for name, show in inspect.getmembers(gauges, inspect.isfunction):
        if name.startswith("show_"):
            show(listed, *[Mock()] * (len(inspect.signature(show).parameters) - 1))
    return [*listed.collect(), *ProcessCollector(registry=None).collect()]


def _exposed(metric: Metric) -> str:
    return {"counter": f"{metric.name}_total", "info": f"{metric.name}_info"}.get(metric.type, metric.name)


def _labels(metric: Metric) -> str:
    return ", ".join(f"`{label}`" for label in metric.samples[0].labels if label != "le")


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    titles = list(head)
    lines = [titles, ["---"] * len(titles), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _escaped(text: str) -> str:
    """Return a sentence as Markdown for a table. Code in it stays code."""
    return re.sub(r"([*\[{|<])", r"\\\1", text)
