"""The proxy of the benchmark: it delays, and changes nothing else."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from tests.support.paths import ROOT
from tests.support.servers.common import HANGS, free_port, listening, wait_until

DELAY = 0.05


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(HANGS)
        yield listener


@pytest.fixture
def pair(server: socket.socket) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a connection through the proxy."""
    port = free_port()
    command = [sys.executable, "-m", "bench.delay", str(port), str(server.getsockname()[1]), str(DELAY * 1e3)]
    process = subprocess.Popen(command, cwd=ROOT)
    try:
        wait_until(lambda: listening(port), "the proxy listening")
        # The probe of listening().
        server.accept()[0].close()
        with socket.create_connection(("127.0.0.1", port), HANGS) as client, server.accept()[0] as other:
            other.settimeout(HANGS)
            yield client, other
    finally:
        process.kill()
        process.wait()


def test_a_round_trip_takes_at_least_the_delay(pair: tuple[socket.socket, socket.socket]) -> None:
    client, other = pair
    begin = time.monotonic()
    client.sendall(b"ping")
    assert other.recv(100) == b"ping"
    assert time.monotonic() - begin >= DELAY / 2
    other.sendall(b"pong")
    assert client.recv(100) == b"pong"
    assert time.monotonic() - begin >= DELAY


def test_much_data_arrives_whole_and_in_order(pair: tuple[socket.socket, socket.socket]) -> None:
    client, other = pair
    sent = os.urandom(1 << 20)
    sending = threading.Thread(target=client.sendall, args=(sent,))
    sending.start()
    received = b""
    while len(received) < len(sent):
        received += other.recv(1 << 16)
    sending.join()
    assert received == sent


def test_the_end_of_one_side_is_the_end_of_the_other(pair: tuple[socket.socket, socket.socket]) -> None:
    client, other = pair
    client.close()
    assert other.recv(1) == b""
