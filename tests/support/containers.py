"""Podman in namespaces of its own, with its images, containers and networks: nothing is left of it."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path
from subprocess import CompletedProcess

from tests.support.cgroup import ControlGroup
from tests.support.paths import ROOT
from tests.support.servers.common import Process, program, require_namespaces, wait_until
from tests.support.servers.debian import debian_root

# What the Containerfile is based on. The root that takes its place has the same Python, from Debian.
_BASE = "docker.io/library/python:3.13-slim"
_CERTIFICATES = "etc/ssl/certs/ca-certificates.crt"

# Podman needs the unified hierarchy, whatever the system has. The others are where it writes, besides its storage.
_PREPARE = """
set -e
mount -t cgroup2 none /sys/fs/cgroup
for each in /dev/shm /run /var/lib/cni; do
    mkdir -p $each
    mount -t tmpfs none $each
done
ip link set lo up
touch "$0"
exec sleep infinity
"""
_STORAGE = """
[storage]
driver = "overlay"
graphroot = "{0}/storage"
runroot = "/run/containers"
"""
# Not more than this process is permitted.
_CONTAINERS = """
[containers]
cgroups = "disabled"
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
"""

# Before the commands of the documentation.
DOCKER = 'docker() { podman "$@"; }'


class Podman:
    """Runs commands with podman; ``stop`` ends all containers.

    :param directory: of its files.
    :raises unittest.SkipTest: if it is not installed, or nothing can be mounted.
    """

    def __init__(self, directory: Path) -> None:
        require_namespaces()
        program("podman")
        self.directory = directory
        (directory / "storage.conf").write_text(_STORAGE.format(directory))
        (directory / "containers.conf").write_text(_CONTAINERS)
        self._env = {
            **os.environ,
            "CONTAINERS_STORAGE_CONF": str(directory / "storage.conf"),
            "CONTAINERS_CONF": str(directory / "containers.conf"),
            # The steps of a build need no namespaces of their own. The format is docker's, which has health checks.
            "BUILDAH_ISOLATION": "chroot",
            "BUILDAH_FORMAT": "docker",
        }
        ready = directory / "ready"
        self._group = ControlGroup("podman")
        spaces = ["--mount", "--net", "--cgroup", "--pid", "--fork", "--kill-child", "--mount-proc"]
        holder = [program("unshare"), *spaces, "sh", "-c", _PREPARE, str(ready)]
        self._holder = Process(self._group.command(holder), directory / "holder.log")
        wait_until(lambda: ready.exists() or self._holder.popen.poll() is not None, "namespaces")
        assert ready.exists(), self._holder.output()

    def stop(self) -> None:
        self._holder.popen.kill()
        self._holder.stop()
        self._group.remove()

    def script(self, script: str, network: bool = False) -> CompletedProcess[str]:
        """Run a script of bash in the source tree.

        :param network: whether it has the network of this machine, instead of one of its own.
        """
        spaces = ["--mount", "--cgroup", "--pid", *([] if network else ["--net"])]
        enter = [program("nsenter"), f"--target={self._init()}", *spaces, f"--wd={ROOT}"]
        return subprocess.run(
            [*enter, "bash", "-c", script], env=self._env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, timeout=900,
        )  # fmt: skip

    def run(self, *arguments: str) -> str:
        """Run podman; return what it prints.

        :raises AssertionError: with its output, if it fails.
        """
        return self._checked(shlex.join(["podman", *arguments]))

    def build(self, command: str) -> None:
        """Make what stands for the base of the image, then the image by a command, with ``docker`` in its place.

        :raises AssertionError: with its output, if it fails.
        """
        root = self.directory / "base"
        made = debian_root("trixie", "python3", "python3-venv", "ca-certificates")
        subprocess.run(["cp", "--archive", "--reflink=auto", str(made), str(root)], check=True)
        # Those of this machine, which may be behind a proxy.
        shutil.copy(f"/{_CERTIFICATES}", root / _CERTIFICATES)
        (root / "etc" / "pip.conf").write_text(f"[global]\ncert = /{_CERTIFICATES}\n")
        self._checked(f"tar --directory={root} --create . | podman import - {_BASE}")
        shutil.rmtree(root)
        self.docker(command, network=True)

    def docker(self, command: str, network: bool = False) -> None:
        """Run a command of the documentation.

        :param network: see :meth:`script`.
        :raises AssertionError: with its output, if it fails.
        """
        self._checked(f"{DOCKER}\n{command}", network)

    def _checked(self, script: str, network: bool = False) -> str:
        ran = self.script(script, network)
        assert ran.returncode == 0, f"{script}: {ran.stdout}"
        return ran.stdout

    def _init(self) -> str:
        """Return the PID of the process in the namespaces."""
        pid = self._holder.popen.pid
        return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0]
