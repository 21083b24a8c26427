"""The options of the history."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from chapps_tw.config.load import load
from chapps_tw.config.settings import ConfigError, Settings


def read(tmp_path: Path, text: str) -> Settings:
    path = tmp_path / "chapps.ini"
    path.write_text(text)
    return load(str(path))


def test_everything_is_kept_for_thirty_days_by_default(tmp_path: Path) -> None:
    history = read(tmp_path, "").history
    assert (history.record, history.keep.seconds, history.max_size) == ("all", 30 * 86400, 4096)


def test_a_node_has_the_name_of_its_host_unless_it_is_given_one(tmp_path: Path) -> None:
    assert read(tmp_path, "").node == socket.gethostname()[:64]
    assert read(tmp_path, "[CHAPPS]\nnode = mx1.example.com\n").node == "mx1.example.com"


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("keep = 30", "must be a duration with a unit (h, d or w) from 1h to 3660d, such as 30d"),
        ("keep = 30m", "must be a duration with a unit (h, d or w) from 1h to 3660d, such as 30d"),
        ("keep = 9999w", "must be a duration with a unit (h, d or w) from 1h to 3660d, such as 30d"),
        ("max_size = 100", "must be a whole number from 128 to 10000000"),
        ("max_size = 4G", "must be a whole number from 128 to 10000000"),
        ("record = refuse", "must be one of all, refused, none; did you mean refused?"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_expected(tmp_path: Path, option: str, expected: str) -> None:
    with pytest.raises(ConfigError) as raised:
        read(tmp_path, f"[History]\n{option}\n")
    name, _, value = option.partition(" = ")
    assert raised.value.problems == [f"{tmp_path}/chapps.ini: line 2: [History] {name} = {value!r}: {expected}"]


@pytest.mark.parametrize("name", ["mx 1", "mx/1", "x" * 65, "m\u00fcx"])
def test_a_wrong_name_of_a_node_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="must be at most 64 letters, digits, dots, hyphens and underscores"):
        read(tmp_path, f"[CHAPPS]\nnode = {name}\n")
