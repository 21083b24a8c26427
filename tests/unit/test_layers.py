"""Who may import whom. Every module is in exactly one layer, and imports only downwards."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from glob import glob
from pathlib import Path

import pytest

from tests.support.paths import ROOT

PACKAGE = ROOT / "chapps_tw"

# Modules and packages by layer. A package stands for all that is in it.
LAYERS: tuple[tuple[str, ...], ...] = (
    (
        *("config", "config_actions", "config_checks", "config_file", "config_render", "config_values", "config_write"),
        *(
            "decision",
            "decision_record",
            "inbound",
            "interfaces",
            "log_limit",
            "memo",
            "names",
            "network",
            "outbound",
            "passcode",
        ),
        *("private_files", "received_spf", "request", "sending", "sqlite_files", "tokens", "unix_socket"),
        "watch",
    ),
    ("policies", "switchboard"),
    (
        *("database", "decision_log", "helo_whitelist", "log_file", "log_stream", "metrics"),
        *(
            "migrations",
            "notify",
            "spf_cache",
            "spf_check",
            "spf_dns",
            "spf_evaluation",
            "spf_macros",
            "spf_messages",
            "spf_syntax",
            "spf_transport",
            "spf_turns",
            "state",
        ),
    ),
    ("cli", "cli_ask", "cli_parser", "postfix", "rest"),
    ("admin", "parts", "preflight", "readings", "service", "start_errors"),
)
TOP = len(LAYERS) - 1

# What each may use besides the standard library. Layer 4 may use what it joins.
TWISTED = frozenset({"twisted", "zope"})
LIBRARIES: dict[str, frozenset[str]] = {
    "names": frozenset({"idna"}),
    "database": TWISTED | {"sqlalchemy", "alembic"},
    "migrations": frozenset({"sqlalchemy", "alembic"}),
    "state": TWISTED | {"txredisapi", "hiredis", "OpenSSL", "service_identity"},
    "spf_check": TWISTED,
    "spf_dns": TWISTED | {"dns"},
    "spf_messages": frozenset({"dns"}),
    "spf_turns": TWISTED,
    "spf_syntax": frozenset({"spf"}),
    "spf_transport": TWISTED,
    "helo_whitelist": TWISTED,
    "log_file": TWISTED,
    "metrics": frozenset({"prometheus_client"}),
    "postfix": TWISTED,
    "sending": TWISTED,
    "rest": TWISTED | {"klein", "pydantic", "pydantic_core", "werkzeug"},
    "parts": TWISTED | {"sqlalchemy"},
    "readings": frozenset({"sqlalchemy"}),
    "service": TWISTED,
    "start_errors": TWISTED | {"sqlalchemy"},
    "admin": frozenset({"sqlalchemy"}),
}

# Parts of one thing: a module may also import its neighbour in the same layer.
FAMILIES: tuple[frozenset[str], ...] = (
    frozenset({"database", "migrations"}),
    frozenset({"log_file", "log_stream"}),
    frozenset(
        {
            *("spf_cache", "spf_check", "spf_dns", "spf_evaluation", "spf_macros", "spf_messages", "spf_syntax"),
            *("spf_transport", "spf_turns"),
        }
    ),
    frozenset({"cli", "cli_ask", "cli_parser"}),
)

CLOCKS = {
    "time": {"time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "localtime"},
    "datetime": {"now", "utcnow", "today"},
    "date": {"today"},
}


def modules() -> list[Path]:
    # Unlike rglob, this goes through the link to the migrations.
    return [PACKAGE / name for name in sorted(glob("**/*.py", root_dir=PACKAGE, recursive=True))]


def parts() -> Iterator[str]:
    """The names directly under the package."""
    for path in PACKAGE.iterdir():
        if path.suffix == ".py" and path.stem != "__init__":
            yield path.stem
        elif (path / "__init__.py").exists():
            yield path.name


def part_of(module: str) -> str:
    """``rest`` for ``chapps_tw.rest.app``; the empty string for ``chapps_tw`` itself, which holds the version."""
    return module.split(".")[1] if "." in module else ""


def layer_of(part: str) -> int:
    return next(number for number, layer in enumerate(LAYERS) if part in layer)


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), str(path))


def name_of(path: Path) -> str:
    return ".".join(["chapps_tw", *path.relative_to(PACKAGE).with_suffix("").parts]).removesuffix(".__init__")


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of everything that a module imports, wherever in it."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} is a relative import"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def forbidden(part: str, imported: str) -> str:
    """Why a part of the package may not import something; empty when it may."""
    top = imported.split(".")[0]
    if top == "chapps_tw":
        return forbidden_part(part, part_of(imported))
    if top in sys.stdlib_module_names or top in LIBRARIES.get(part, ()):
        return ""
    return f"{part} may not use {top}"


def forbidden_part(part: str, other: str) -> str:
    if other in ("", "__version__") or other == part or any({part, other} <= family for family in FAMILIES):
        return ""
    mine, its = layer_of(part), layer_of(other)
    allowed = {0: {0}, 1: {0, 1}, 2: {0}, 3: {0, 1}, TOP: set(range(TOP + 1))}[mine]
    return "" if its in allowed else f"{part} (layer {mine}) may not import {other} (layer {its})"


def test_every_module_is_in_exactly_one_layer() -> None:
    named = [name for layer in LAYERS for name in layer]
    assert sorted(named) == sorted(parts())


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_imports_only_what_its_layer_may(path: Path) -> None:
    part = part_of(name_of(path))
    if part == "":
        assert list(imports(path)) == []
        return
    found = [f"line {line}: {why}" for line, name in imports(path) if (why := forbidden(part, name))]
    assert not found


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_only_the_service_names_the_reactor(path: Path) -> None:
    if name_of(path) == "chapps_tw.service":
        return
    assert not [line for line, name in imports(path) if name.startswith("twisted.internet.reactor")]


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_reads_no_clock_below_the_top_layer(path: Path) -> None:
    part = part_of(name_of(path))
    if part == "" or layer_of(part) == TOP:
        return
    assert not list(clock_readings(tree_of(path)))


def clock_readings(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name | ast.Attribute):
            owner = node.value.id if isinstance(node.value, ast.Name) else node.value.attr
            if node.attr in CLOCKS.get(owner, ()):
                yield f"line {node.lineno}: {owner}.{node.attr}"
        elif isinstance(node, ast.ImportFrom) and node.module == "time":
            yield from (f"line {node.lineno}: {each.name}" for each in node.names if each.name in CLOCKS["time"])


@pytest.mark.parametrize(
    "part, imported",
    [
        ("request", "twisted.internet.defer.Deferred"),
        ("config", "chapps_tw.switchboard.Switchboard"),
        ("policies", "chapps_tw.state.sqlite.SqliteState"),
        ("state", "chapps_tw.policies.quota"),
        ("state", "chapps_tw.database.book"),
        ("rest", "chapps_tw.database.keeper"),
        ("postfix", "chapps_tw.metrics.Metrics"),
        ("cli", "chapps_tw.admin.main"),
        ("rest", "chapps_tw.service"),
    ],
)
def test_the_rule_refuses(part: str, imported: str) -> None:
    assert forbidden(part, imported)


@pytest.mark.parametrize(
    "source", ["import time\ntime.time()", "import datetime\ndatetime.datetime.now()", "from time import monotonic"]
)
def test_the_rule_sees_a_clock(source: str) -> None:
    assert list(clock_readings(ast.parse(source)))
