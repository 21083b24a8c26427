"""Who may import whom: each package imports only what its rule names, and there is no circle."""

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

# What each package may import of the others. ``application`` joins them all.
MAY: dict[str, frozenset[str]] = {
    package: frozenset(others.split())
    for package, others in {
        "security": "",
        "sockets": "",
        "mail": "",
        "config": "interfaces mail security",
        "interfaces": "mail",
        "observe": "mail security",
        "outbound": "config interfaces mail",
        "policies": "config interfaces mail outbound",
        "dns": "mail observe",
        "spf": "dns mail",
        "state": "config interfaces mail observe security sockets",
        "database": "config interfaces mail migrations observe security",
        "migrations": "database",
        "history": "config database interfaces mail observe security",
        "notify": "config database interfaces mail observe policies sockets",
        "adoption": "config interfaces mail outbound policies",
        "postfix_check": "config policies",
        "postfix": "interfaces mail observe outbound policies sockets",
        "processes": "mail observe policies sockets",
        "rest": "config interfaces mail observe policies security",
        "ui": "config interfaces mail observe policies rest security",
        "cli": "config interfaces mail policies postfix_check security",
        "application": (
            "adoption cli config database dns history interfaces mail notify observe outbound policies postfix "
            "processes rest security sockets spf state ui"
        ),
        "service": "application config observe policies security sockets",
    }.items()
}
# Joins the parts, and gives the others their clocks.
TOP = frozenset({"application", "service"})

# What each may use besides the standard library.
TWISTED = frozenset({"twisted", "zope"})
LIBRARIES: dict[str, frozenset[str]] = {
    "mail": frozenset({"idna"}),
    "sockets": TWISTED | {"OpenSSL"},
    "database": TWISTED | {"sqlalchemy", "alembic"},
    "migrations": frozenset({"sqlalchemy", "alembic"}),
    "history": TWISTED | {"sqlalchemy"},
    "notify": TWISTED | {"sqlalchemy", "jinja2"},
    "state": TWISTED | {"txredisapi", "hiredis", "OpenSSL", "service_identity"},
    "adoption": TWISTED,
    "dns": TWISTED | {"dns"},
    "spf": TWISTED | {"spf"},
    "observe": TWISTED | {"prometheus_client"},
    "postfix": TWISTED,
    "processes": TWISTED,
    "rest": TWISTED | {"klein", "pydantic", "pydantic_core", "werkzeug"},
    "ui": TWISTED | {"jinja2", "klein", "markupsafe"},
    "cli": frozenset({"click", "rich"}),
    "application": TWISTED | {"sqlalchemy"},
    "service": TWISTED,
}

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
    if other in ("", "__version__") or other == part or other in MAY[part]:
        return ""
    return f"{part} may not import {other}"


def test_every_package_has_its_rule() -> None:
    assert sorted(MAY) == sorted(parts())


def test_there_is_no_circle() -> None:
    # Alembic's scripts and what calls them are two halves of one thing.
    left = {package: others - {"migrations"} for package, others in MAY.items()}
    while free := [package for package, others in left.items() if not others & left.keys()]:
        for package in free:
            del left[package]
    assert not left


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_imports_only_what_its_package_may(path: Path) -> None:
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
def test_reads_no_clock_below_the_top(path: Path) -> None:
    part = part_of(name_of(path))
    if part == "" or part in TOP:
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
        ("mail", "twisted.internet.defer.Deferred"),
        ("config", "chapps_tw.postfix.pipeline.Pipeline"),
        ("policies", "chapps_tw.state.sqlite.store.SqliteState"),
        ("state", "chapps_tw.policies.quota"),
        ("state", "chapps_tw.database.book"),
        ("rest", "chapps_tw.database.writable_book"),
        ("rest", "chapps_tw.history.files.FileStore"),
        ("database", "chapps_tw.history.table"),
        ("postfix", "chapps_tw.database.book.Book"),
        ("cli", "chapps_tw.application.admin.main"),
        ("rest", "chapps_tw.notify.notifier.Notifier"),
        ("notify", "chapps_tw.rest.app"),
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


@pytest.mark.parametrize("path", [path for path in modules() if part_of(name_of(path)) == "rest"], ids=name_of)
def test_only_the_routes_about_the_live_state_invalidate_what_is_cached(path: Path) -> None:
    """A change of the book does it by itself (:meth:`chapps_tw.interfaces.writable_book.WritableBook.change`)."""
    if name_of(path).startswith("chapps_tw.rest.routers.live"):
        return
    named = [node.attr for node in ast.walk(tree_of(path)) if isinstance(node, ast.Attribute)]
    assert not [name for name in named if name.startswith("drop_")]
