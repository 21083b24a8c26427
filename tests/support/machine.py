"""A Debian root, booted by systemd-nspawn in namespaces of its own: systemd is its PID 1, loopback its network."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.cgroup import ControlGroup
from tests.support.servers.common import Process, program, wait_until
from tests.support.servers.debian import debian_root

# What a Debian server has, and what the package depends on.
_PACKAGES = ("systemd", "systemd-sysv", "dbus", "python3", "logrotate", "bash-completion", "init-system-helpers")
_ENVIRONMENT = ["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive"]


@contextmanager
def machine_of(release: str, directory: Path, *packages: str) -> Iterator[Machine]:
    """Boot a Debian release, such as ``bookworm``, with more packages than a bare server has.

    :param directory: where its root is made.
    :raises unittest.SkipTest: see :func:`~tests.support.servers.debian.debian_root`.
    """
    root = directory / release
    made = debian_root(release, *_PACKAGES, *packages)
    subprocess.run(["cp", "--archive", "--reflink=auto", str(made), str(root)], check=True)
    machine = Machine(root)
    try:
        yield machine
    finally:
        machine.stop()


class Machine:
    """Boots a root; ``stop`` shuts it down.

    :raises TimeoutError: if it does not get up.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        name = f"{root.name}-{os.getpid()}"
        # Another machine on this system may have the same units.
        self._group = ControlGroup(name)
        command = [program("systemd-nspawn"), "--quiet", f"--directory={root}", f"--machine={name}", "--boot"]
        options = ["--register=no", "--keep-unit", "--private-network", "--console=pipe"]
        # systemd of Debian 13 needs the unified hierarchy.
        env = {**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"}
        self._nspawn = Process(self._group.command([*command, *options]), root.with_suffix(".log"), env=env)
        wait_until(self._is_running, "systemd of the machine running")

    def stop(self) -> None:
        # Longer than systemd waits for a service.
        self._nspawn.stop(seconds=120)
        self._group.remove()

    def run(self, *command: str) -> str:
        """Run a command in the machine; return what it prints.

        :raises AssertionError: with its output, if it fails.
        """
        ran = self._run(*command)
        assert ran.returncode == 0, f"{command}: {ran.stdout}{ran.stderr}"
        return ran.stdout

    def fails(self, *command: str) -> bool:
        return self._run(*command).returncode != 0

    def socket(self, path: str) -> str:
        """Return where a unix socket of the machine is found from here."""
        return f"/proc/{self._init()}/root{path}"

    def _run(self, *command: str) -> subprocess.CompletedProcess[str]:
        enter = [program("nsenter"), "--all", f"--target={self._init()}", *_ENVIRONMENT]
        return subprocess.run([*enter, *command], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=300)

    def _init(self) -> str:
        """Return the PID of the machine's systemd, as seen from here."""
        pid = self._nspawn.popen.pid
        return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0]

    def _is_running(self) -> bool:
        assert self._nspawn.popen.poll() is None, self._nspawn.output()
        try:
            return self._run("systemctl", "is-system-running").stdout.strip() == "running"
        except IndexError:
            return False
