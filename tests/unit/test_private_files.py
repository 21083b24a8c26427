"""Ownership of files created as root, and explanations of files that cannot be opened."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chapps_tw.application import admin
from chapps_tw.cli import main as cli
from chapps_tw.interfaces.state import StateUnavailable
from chapps_tw.security import sqlite_files
from chapps_tw.security.private_files import explain, make_directory
from chapps_tw.security.tokens import TokenError, TokenStore
from chapps_tw.state.sqlite.file import open_file
from tests.support.other_user import NOBODY, OTHER, acting_as, directory_of, needs_root

WORLD = admin.dependencies(lambda: 1000000000.0)


@pytest.fixture
def place() -> Iterator[Path]:
    with directory_of(NOBODY) as path:
        yield path


@pytest.fixture
def run(place: Path) -> Callable[..., int]:
    config = place / "chapps.ini"
    config.write_text(f"[CHAPPS]\ndata_dir = {place}\n")
    config.chmod(0o644)
    return lambda *arguments: cli.run(["--config", str(config), *arguments], WORLD)


def owners(place: Path) -> dict[str, tuple[int, int]]:
    """Owner and mode of each file but the configuration."""
    found = {path.name: path.stat() for path in place.iterdir() if path.name != "chapps.ini"}
    return {name: (each.st_uid, each.st_mode & 0o777) for name, each in found.items()}


@needs_root
def test_files_created_as_root_belong_to_the_owner_of_their_directory(place: Path, run: Callable[..., int]) -> None:
    assert run("token", "create", "billing") == 0
    assert run("admin", "db-setup") == 0
    assert run("admin", "flush-config", "--to", str(place / "new.ini")) == 0
    names = ("api-tokens.json", "api-tokens.lock", "chapps.sqlite3", "new.ini")
    assert owners(place) == dict.fromkeys(names, (NOBODY, 0o600))


@needs_root
def test_commands_of_the_services_user_work_after_those_of_root(place: Path, run: Callable[..., int]) -> None:
    assert run("token", "create", "first by root") == run("admin", "add-examples") == 0
    with acting_as(NOBODY):
        assert run("token", "create", "second by the service's user") == 0
        with sqlite3.connect(place / "chapps.sqlite3") as database:
            database.execute("UPDATE users SET name = 'carol@example.com' WHERE id = 1")
    assert run("token", "revoke", "first by root") == 0
    with acting_as(NOBODY):
        names = [token.name for token in TokenStore(str(place / "api-token")).list()]
    assert names == ["second by the service's user"]


@needs_root
def test_the_wal_of_a_file_opened_by_root_is_writable_by_its_owner(place: Path) -> None:
    path = place / "file.sqlite3"
    sqlite_files.create(path)
    database = sqlite3.connect(path)
    sqlite_files.write_ahead(database)
    database.execute("CREATE TABLE kept (it)")
    assert owners(place) == dict.fromkeys((path.name, f"{path.name}-wal", f"{path.name}-shm"), (NOBODY, 0o600))
    with acting_as(NOBODY):
        other = sqlite3.connect(path)
        other.execute("INSERT INTO kept VALUES (1)")
        other.close()
    database.close()


@needs_root
def test_directories_created_as_root_belong_to_the_owner_of_their_parent(place: Path) -> None:
    make_directory(place / "one" / "two")
    for path in (place / "one", place / "one" / "two"):
        assert (path.stat().st_uid, path.stat().st_mode & 0o777) == (NOBODY, 0o700)


@needs_root
def test_ownership_is_not_changed_through_a_symbolic_link(place: Path, run: Callable[..., int]) -> None:
    with directory_of(0) as roots:
        secret = roots / "secret"
        secret.write_text("keep")
        for name in ("api-tokens.lock", "api-tokens.new"):
            (place / name).symlink_to(secret)
        assert run("token", "create", "billing") == 1
        (place / "api-tokens.lock").unlink()
        assert run("token", "create", "billing") == 0
        assert (secret.stat().st_uid, secret.read_text()) == (0, "keep")


# --- what is told ---


@needs_root
@pytest.mark.parametrize("name", ["api-tokens.lock", "api-tokens.json", "api-token"])
def test_a_token_file_of_root_is_reported_with_the_remedy(place: Path, run: Callable[..., int], name: str) -> None:
    (place / name).touch(0o600)
    with acting_as(NOBODY), pytest.raises(TokenError) as told:
        store = TokenStore(str(place / "api-token"))
        store.create("billing", "full", 1.0)
        store.make_first()
        store.list()
    assert str(told.value).startswith(f"{place / name}: ")
    assert (
        f"it belongs to root, and this runs as nobody; change its owner (as root: chown nobody {place / name})"
        in str(told.value)
    )


@needs_root
@pytest.mark.parametrize("suffix", ["", "-wal", "-shm"])
def test_a_database_owned_by_root_is_reported_with_the_remedy(
    place: Path, run: Callable[..., int], suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("admin", "db-setup") == 0
    path = place / f"chapps.sqlite3{suffix}"
    path.touch(0o600)
    os.chown(path, 0, 0)
    with acting_as(NOBODY):
        assert run("admin", "db-setup") == 1
    err = capsys.readouterr().err
    assert f"{place / 'chapps.ini'}: [PolicyConfigAdapter] db_name: {path} cannot be opened" in err
    assert f"chown nobody {path}" in err


@needs_root
def test_a_state_file_owned_by_root_is_reported_with_the_remedy(place: Path) -> None:
    path = place / "state.sqlite3"
    path.touch(0o600)
    with acting_as(NOBODY), pytest.raises(StateUnavailable, match=f"change its owner .as root: chown nobody {path}"):
        open_file(str(path))


@needs_root
def test_an_inaccessible_configuration_is_reported_with_the_user_to_run_as(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = place / "chapps.ini"
    monkeypatch.setattr("chapps_tw.config.load.DEFAULT_PATH", str(path))
    monkeypatch.delenv("CHAPPS_CONFIG", raising=False)
    for command in (["check-config"], ["token", "show"], ["admin", "flush-config"]):
        with acting_as(OTHER):
            assert cli.run(command, WORLD) == 1
        told = f"{path}: cannot be read: Permission denied: {place} belongs to nobody, and this runs as {OTHER}; "
        assert capsys.readouterr() == ("", f"chapps-cli: {told}run this as nobody (sudo -u nobody)\n")


@needs_root
def test_a_directory_that_is_not_writable_is_reported_with_its_owner(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place.chmod(0o755)
    with acting_as(OTHER):
        assert cli.run(["--config", "", "admin", "flush-config", "--to", str(place / "new.ini")], WORLD) == 1
    assert f"{place / 'new.ini'}: cannot be written: Permission denied: {place} belongs to nobody" in (
        capsys.readouterr().err
    )


@needs_root
def test_a_mode_that_denies_access_to_the_owner_is_reported(place: Path) -> None:
    path = place / "file"
    # Modes keep root out of nothing.
    with acting_as(NOBODY):
        path.touch(0o000)
        with pytest.raises(PermissionError) as error:
            path.read_text()
        assert "but its mode 0000 denies access; change it with chmod" in explain(path, error.value)


def test_the_missing_directory_is_named(tmp_path: Path) -> None:
    path = tmp_path / "no" / "such" / "file"
    with pytest.raises(FileNotFoundError) as error:
        path.write_text("")
    assert (
        explain(path, error.value) == f"No such file or directory: there is no directory {path.parent}; make it first"
    )


def test_a_full_disk_is_reported_with_the_remedy() -> None:
    with open("/dev/full", "wb", buffering=0) as file, pytest.raises(OSError) as error:
        file.write(b"x")
    assert explain("/dev/full", error.value) == "No space left on device: make room there"
