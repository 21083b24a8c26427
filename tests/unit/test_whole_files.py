"""Files with secrets are written atomically, and their modes are checked."""

from __future__ import annotations

import resource
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from chapps_tw.config.load import load
from chapps_tw.config.settings import ConfigError, Settings
from chapps_tw.config.write import write
from chapps_tw.security.private_files import write_atomically
from chapps_tw.security.tokens import TokenError, TokenStore
from tests.support.other_user import needs_root
from tests.support.scopes import scope_of


@contextmanager
def no_room() -> Iterator[None]:
    """Writing to a file fails."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A directory on a file system that has free inodes but no free blocks."""
    place = tmp_path / "full"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4096", "tmpfs", str(place)], check=True)
    try:
        (place / "filling").write_bytes(bytes(4096))
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_a_failed_write_of_the_first_token_leaves_no_file_and_is_retried_at_the_next_start(tmp_path: Path) -> None:
    path = tmp_path / "api-token"
    with no_room(), pytest.raises(TokenError, match=f"^{path}: the API token cannot be written"):
        TokenStore(str(path)).make_first()
    assert list(tmp_path.iterdir()) == []
    assert TokenStore(str(path)).make_first()
    assert scope_of(TokenStore(str(path)), path.read_text().strip()) == "full"


@needs_root
def test_a_full_disk_is_reported_with_the_remedy(full_disk: Path) -> None:
    with pytest.raises(TokenError, match=f"^{full_disk}/api-token: .*No space left on device: make room there"):
        TokenStore(str(full_disk / "api-token")).make_first()
    assert [path.name for path in full_disk.iterdir()] == ["filling"]


def test_a_failed_write_leaves_the_tokens_unchanged(tmp_path: Path) -> None:
    store = TokenStore(str(tmp_path / "api-token"))
    store.make_first()
    first, other = (tmp_path / "api-token").read_text().strip(), store.create("billing", "read", 1.0)
    before = sorted(path.name for path in tmp_path.iterdir())
    with no_room(), pytest.raises(TokenError, match=f"^{tmp_path}/api-tokens.json: cannot be written"):
        store.create("more", "read", 2.0)
    assert (scope_of(store, first), scope_of(store, other)) == ("full", "read")
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_failed_write_leaves_the_configuration_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "chapps.ini"
    path.write_text("[CHAPPS]\n")
    with no_room(), pytest.raises(ConfigError, match=f"^{path}: cannot be written"):
        write(Settings(), str(path))
    assert path.read_text() == "[CHAPPS]\n"
    assert list(tmp_path.iterdir()) == [path]


def test_an_existing_file_is_not_replaced_without_replace(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(FileExistsError):
        write_atomically(path, b"new", replace=False)
    assert path.is_symlink() and list(tmp_path.iterdir()) == [path]


# --- who may read them ---


def warnings(path: Path, mode: int, text: str) -> list[str]:
    path.write_text(text)
    path.chmod(mode)
    return [each for each in load(str(path)).warnings if "every local account" in each]


def test_world_readable_password_and_token_files_cause_warnings(tmp_path: Path) -> None:
    path, secret, token = tmp_path / "chapps.ini", tmp_path / "secret", tmp_path / "api-token"
    secret.write_text("hush\n")
    token.write_text("hush\n")
    text = (
        f"[CHAPPS]\ndata_dir = {tmp_path}\n[PolicyConfigAdapter]\nadapter = mariadb\ndb_pass_file = {secret}\n"
        f"[Redis]\nserver = localhost\npassword_file = {secret}\n"
    )
    for file in (secret, token):
        file.chmod(0o644)
    found = warnings(path, 0o600, text)
    assert [each.split(" = ")[0].rpartition(": ")[2] for each in found] == [
        "[PolicyConfigAdapter] db_pass_file",
        "[Redis] password_file",
        "[API] token_file",
    ]
    assert f"chmod o-r {token}" in found[2]
    for file in (secret, token):
        file.chmod(0o640)
    assert warnings(path, 0o600, text) == []
