"""The file of the decision log: rotation, errors, lost lines."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from chapps_tw.observe import log_file
from chapps_tw.observe.decision_record import loss_as_json, loss_as_text
from chapps_tw.observe.log_file import LogFile
from tests.support.paths import ROOT
from tests.support.policy_client import outbound
from tests.support.servers.common import wait_until
from tests.support.servers.service import Service


class Log(LogFile):
    """One that keeps what it reports."""

    def __init__(self, path: Path, note: Callable[[int], str] = loss_as_text) -> None:
        self.told: list[str] = []
        super().__init__(str(path), note, self.told.append)


@contextmanager
def opened(path: Path, note: Callable[[int], str] = loss_as_text) -> Iterator[Log]:
    log = Log(path, note)
    log.open()
    try:
        yield log
    finally:
        log.close()


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an end take its time, as nobody waits for it."""
    monkeypatch.setattr(log_file, "CLOSE_SECONDS", 60.0)


def wait_for(path: Path, content: bytes) -> None:
    wait_until(lambda: path.exists() and path.read_bytes() == content, f"{content!r} in {path}")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "log").mkdir()
    return tmp_path / "log" / "decisions.log"


def test_a_log_file_is_appended_to_and_follows_rotation(path: Path) -> None:
    path.write_bytes(b"before\n")
    with opened(path) as log:
        log.write(b"one\n")
        wait_for(path, b"before\none\n")
        path.rename(path.with_name("old"))
        log.write(b"two\n")
        wait_for(path, b"two\n")
        path.unlink()
        log.write(b"three\n")
    assert path.read_bytes() == b"three\n"
    assert path.stat().st_mode & 0o007 == 0
    assert (log.told, log.lost) == ([], 0)


# Writes lines, interrupted at any point by something that writes lines too: a handler of a signal, or a finalizer.
_INTERRUPTED = """
import random, signal, sys, time
from chapps_tw.observe.log_file import LogFile

file, plain, inside = LogFile(sys.argv[1], str, print), 0, 0

def interrupt(*_):
    global inside
    inside += 1
    file.write(b"a line\\n")

file.open()
signal.signal(signal.SIGALRM, interrupt)
end = time.monotonic() + 1
while time.monotonic() < end:
    signal.setitimer(signal.ITIMER_REAL, random.uniform(0.00001, 0.0001))
    for _ in range(100):
        plain += 1
        file.write(b"a line\\n")
    file.flush(1)
signal.setitimer(signal.ITIMER_REAL, 0)
assert inside > 100, inside
file.close()
print(plain + inside)
"""


def test_a_line_may_be_written_in_the_middle_of_another_write(path: Path) -> None:
    command = [sys.executable, "-c", _INTERRUPTED, str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert (done.returncode, done.stderr) == (0, "")
    assert path.read_bytes().count(b"\n") == int(done.stdout)


def test_lines_go_to_the_renamed_file_while_reopening_fails(path: Path) -> None:
    moved = path.parent.with_name("moved")
    with opened(path) as log:
        log.write(b"one\n")
        wait_for(path, b"one\n")
        path.parent.rename(moved)
        log.write(b"two\n")
        log.write(b"three\n")
        wait_for(moved / path.name, b"one\ntwo\nthree\n")
        path.parent.mkdir()
        log.write(b"four\n")
    assert path.read_bytes() == b"four\n"
    assert log.told == [
        f"The decision log {path} cannot be reopened: No such file or directory: there is no directory "
        f"{path.parent}; make it first. Until then, lines are written to the renamed file.",
        f"The decision log {path} is written again.",
    ]
    assert log.lost == 0


def test_lines_of_a_deleted_file_are_counted_as_lost(path: Path) -> None:
    with opened(path) as log:
        log.write(b"one\n")
        wait_for(path, b"one\n")
        shutil.rmtree(path.parent)
        log.write(b"two\nthree\n")
        log.write(b"four\n")
        wait_until(lambda: log.lost == 3, "the loss")
        path.parent.mkdir()
        log.write(b"five\n")
    assert path.read_bytes() == b"3 lines of the log were lost\nfive\n"
    assert [text.rpartition(". ")[2] for text in log.told] == [
        "Until then, lines are lost.",
        f"The decision log {path} is written again.",
    ]


def test_a_failure_to_write_the_renamed_file_is_reported(path: Path) -> None:
    with opened(path) as log:
        log.write(b"one\n")
        wait_for(path, b"one\n")
        path.parent.rename(path.parent.with_name("moved"))
        with file_size_limit(4):
            log.write(b"two\n")
            wait_until(lambda: log.lost == 1, "the loss")
    assert log.told[0] == f"The decision log {path} cannot be written: File too large."


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (os.mkdir, "Is a directory"),
        (os.mkfifo, "No such device or address: nobody reads what is written there; start its reader"),
    ],
)
def test_an_unusable_path_is_reported(path: Path, make: Callable[[Path], None], told: str) -> None:
    moved = path.with_name("moved")
    with opened(path) as log:
        log.write(b"one\n")
        wait_for(path, b"one\n")
        path.rename(moved)
        make(path)
        log.write(b"two\n")
        wait_for(moved, b"one\ntwo\n")
    assert told in log.told[0]


def test_a_pipe_without_a_reader_does_not_block_the_start(path: Path) -> None:
    os.mkfifo(path)
    with pytest.raises(OSError, match="No such device"):
        Log(path).open()


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond some bytes, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_no_incomplete_line_and_an_exact_count(path: Path) -> None:
    lines = [b"%09d\n" % number for number in range(20_000)]
    with opened(path) as log:
        with file_size_limit(100_004):
            log.write(b"".join(lines[:15_000]))
            wait_until(lambda: log.lost == 5_000, "the loss")
            log.write(lines[15_000])
            wait_until(lambda: log.lost == 5_001, "the loss")
        log.write(b"last\n")
    assert path.read_bytes() == b"".join(lines[:10_000]) + b"5001 lines of the log were lost\nlast\n"
    assert log.told == [
        f"The decision log {path} cannot be written: File too large.",
        f"The decision log {path} is written again.",
    ]


def test_an_incomplete_line_of_a_killed_process_is_terminated(path: Path) -> None:
    path.write_bytes(b"one\ntw")
    with opened(path) as log:
        log.write(b"three\n")
    assert path.read_bytes() == b"one\ntw\nthree\n"


def read(descriptor: int, end: bytes) -> bytes:
    found = b""
    while not found.endswith(end):
        found += os.read(descriptor, 65536)
    return found


def reader_of(path: Path) -> int:
    """Open a pipe to read from, whether or not somebody writes to it."""
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(reader, True)
    return reader


def test_the_next_reader_of_a_pipe_starts_with_a_new_line(path: Path) -> None:
    os.mkfifo(path)
    reader = reader_of(path)
    line = b"x" * 99 + b"\n"
    with opened(path) as log:
        log.write(line * 10_000)
        assert os.read(reader, 100) == line
        os.close(reader)
        wait_until(lambda: log.lost, "the loss")
        lost = log.lost
        reader = reader_of(path)
        log.write(b"last\n")
        *kept, torn, note, last, end = (line[50:] + read(reader, b"last\n").partition(line[50:])[2]).split(b"\n")
        os.close(reader)
    assert set(kept[1:]) == {line[:-1]} and line.startswith(torn)
    assert (note, last, end) == (b"%d lines of the log were lost" % lost, b"last", b"")
    assert len(kept) + 1 + lost == 10_000
    broken, mended = log.told
    assert broken.endswith(" cannot be written: Broken pipe: nobody reads what is written there; start its reader.")
    assert mended == f"The decision log {path} is written again."


@pytest.mark.parametrize(
    ("note", "line"),
    [(loss_as_text, b"4 lines of the log were lost"), (loss_as_json, b'{"lost_lines": 4}')],
)
def test_the_number_of_lost_lines_is_written(path: Path, note: Callable[[int], str], line: bytes) -> None:
    os.mkfifo(path)
    reader = reader_of(path)
    with opened(path, note) as log:
        for _ in range(20):
            log.write(b"x" * (1024 * 1024 - 1) + b"\n")
        found = b""
        while found.count(b"\n") < 16:
            found += os.read(reader, 65536)
        log.write(b"last\n")
        found += read(reader, b"last\n")
    os.close(reader)
    assert b"\n" + line + b"\nlast\n" in found
    assert log.told == [f"The decision log {path} is too slow: lines are lost."]


def test_lines_lost_at_the_stop_are_reported_in_the_service_log(path: Path) -> None:
    os.mkfifo(path)
    reader = reader_of(path)
    with opened(path) as log:
        os.close(reader)
        log.write(b"one\ntwo\n")
    assert log.told[1:] == [f"The last 2 lines of the decision log {path} were lost."]


def test_a_blocked_log_does_not_delay_the_stop(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_file, "CLOSE_SECONDS", 0.2)
    os.mkfifo(path)
    reader = reader_of(path)
    with opened(path) as log:
        log.write(b"x" * 999_999 + b"\n")
    os.close(reader)
    assert log.told[0] == f"The last 1000000 bytes of the decision log {path} were not written in time."


# --- the process ---


@pytest.fixture
def service(path: Path) -> Iterator[Service]:
    service = Service({"Log": {"file": path}})
    yield service
    service.remove()


def redirected(to: str) -> list[str]:
    """What starts a program with its output elsewhere."""
    return ["/bin/sh", "-c", f'exec "$@" {to}', "sh"]


def ask(service: Service, name: str) -> None:
    with service.client() as client:
        client.ask(outbound(instance=name))


def test_a_full_service_log_does_not_stop_the_decision_log(service: Service, path: Path) -> None:
    service.start(prefix=redirected(">/dev/full 2>&1"))
    moved = path.parent.with_name("moved")
    path.parent.rename(moved)
    ask(service, "one")
    wait_until(lambda: " instance=one " in (moved / path.name).read_text(), "the line")
    path.parent.mkdir()
    ask(service, "two")
    wait_until(lambda: path.exists() and " instance=two " in path.read_text(), "the line")


def test_a_file_that_cannot_be_reopened_is_reported_in_the_service_log(service: Service, path: Path) -> None:
    service.start()
    shutil.rmtree(path.parent)
    ask(service, "one")
    told = f"The decision log {path} cannot be reopened: No such file or directory: there is no directory"
    wait_until(lambda: told in service.log(), "the sentence")


def test_a_closed_standard_output_is_an_error_at_the_start(service: Service) -> None:
    service.write_config({"Log": {"file": "-"}})
    service.launch(prefix=redirected(">&-"))
    wait_until(lambda: service.has_ended, "the end")
    assert service.stop() == 1


def test_a_discarded_standard_output_is_a_warning(service: Service) -> None:
    # As where twistd goes into the background.
    service.write_config({"Log": {"file": "-"}})
    log = service.directory / "twistd.log"
    start = f'program=$1; shift; exec "$program" --logfile={log} "$@" >/dev/null'
    service.start(prefix=["/bin/sh", "-c", start, "sh"])
    assert "standard output, which goes nowhere: name a file in [Log] file." in log.read_text()
