"""Values as text, JSON, CSV and tables."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

# Of names and addresses from outside: they could hold sequences that a terminal obeys.
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")

# Wide enough for every table, where no terminal sets the width.
_NO_TERMINAL = 1000


def plain(value: Any) -> str:
    """Return a value of an answer as text for people, without control characters."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return plain(value["name"]) if "name" in value else ", ".join(f"{k} {plain(v)}" for k, v in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(plain, value))
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return _CONTROLS.sub(lambda found: f"\\x{ord(found[0]):02x}", str(value))


def local(epoch: float, seconds: bool = False) -> str:
    """Return epoch seconds as local time, such as ``2026-10-01 14:05``.

    :param seconds: whether to show seconds, too.
    """
    return datetime.fromtimestamp(epoch).strftime("%Y-%m-%d %H:%M:%S" if seconds else "%Y-%m-%d %H:%M")


def as_json(data: Any) -> str:
    """Return JSON with indentation."""
    text = json.dumps(data, ensure_ascii=False, indent=2)
    return _CONTROLS.sub(lambda found: found[0] if found[0] == "\n" else f"\\u{ord(found[0]):04x}", text)


def as_json_line(data: Any) -> str:
    """Return JSON in one line."""
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(data, ensure_ascii=False))


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as CSV (RFC 4180) with a header. Names in a list are separated by blanks."""
    text = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.writer(text, lineterminator="\n")
    if names:
        writer.writerow(names)
    writer.writerows([_cell(row.get(name)) for name in names] for row in rows)
    return text.getvalue().removesuffix("\n")


def _cell(value: Any) -> str:
    if isinstance(value, list) and all(isinstance(each, Mapping) and "name" in each for each in value):
        return " ".join(plain(each) for each in value)
    if isinstance(value, Mapping) and "name" in value:
        return plain(value)
    if isinstance(value, list | Mapping):
        return json.dumps(value, ensure_ascii=False)
    return "" if value is None else str(value)


def as_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Return rows as a table. Times are local."""
    from rich.console import Console

    text = io.StringIO()
    console = Console(file=text, width=None if sys.stdout.isatty() else _NO_TERMINAL, highlight=False)
    console.print(make_table(rows, columns))
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())


def make_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], title: str | None = None) -> Any:
    """Return rows as a :class:`rich.table.Table`."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), title=title, title_justify="left")
    for name in columns:
        is_number = any(isinstance(row.get(name), int | float) and not _is_time(name) for row in rows)
        table.add_column(name.replace("_", " "), justify="right" if is_number else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(shown(name, row.get(name))) for name in columns))
    return table


def _is_time(name: str) -> bool:
    return name in ("time", "at", "begin", "until", "created", "start", "started", "room_at")


def shown(name: str, value: Any) -> str:
    """Return the value of a field as text for people. Times are local."""
    return local(value) if _is_time(name) and isinstance(value, int | float) else plain(value)
