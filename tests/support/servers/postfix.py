"""A Postfix of its own: configuration, queue and mailbox in one temporary directory.

All mail that it accepts ends in one maildir; nothing leaves the machine. Any client on loopback may
speak for another one (XCLIENT), and say who has logged in.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from email import message_from_bytes
from email.message import Message
from pathlib import Path

from tests.support.guard import MARK
from tests.support.servers.common import HANGS, Process, free_port, listening, missing, program, wait_until

STAGES = {
    "CONNECT": "smtpd_client_restrictions",
    "EHLO": "smtpd_helo_restrictions",
    "MAIL": "smtpd_sender_restrictions",
    "RCPT": "smtpd_recipient_restrictions",
    "DATA": "smtpd_data_restrictions",
    "END-OF-MESSAGE": "smtpd_end_of_data_restrictions",
}

_NOBODY = 65534

# Name, type, private, unprivileged, chroot, wakeup, processes, command: see master(5).
_MASTER = """\
{port} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
anvil unix - - n - 1 anvil
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
local unix - n n - - local
virtual unix - n n - - virtual
postlog unix-dgram n - n - 1 postlogd
"""

_SASL = """\
pwcheck_method: auxprop
auxprop_plugin: sasldb
mech_list: PLAIN LOGIN
sasldb_path: {file}
"""


class Postfix:
    """A Postfix that uses a policy service, started by the constructor.

    :param asked: stage (a key of :data:`STAGES`) to the policy endpoints asked there, each such as
        ``inet:127.0.0.1:10225`` or ``unix:/path``.
    :param domains: local domains; other mail is relayed only for authenticated clients.
    :param users: names to passwords for a real AUTH PLAIN.
    :param parameters: of main.cf; they override the defaults here.
    :param submission: ``-o`` lines of a submission service in master.cf, which listens on ``submission_port`` then.
    :param root: the root directory of the system whose Postfix it is. It sees the temporary files of the tests.
    :raises unittest.SkipTest: if Postfix is not installed, or the tests do not run as root.
    """

    def __init__(
        self,
        asked: Mapping[str, Sequence[str]],
        domains: Sequence[str] = ("example.com",),
        users: Mapping[str, str] | None = None,
        parameters: Mapping[str, str] | None = None,
        submission: str = "",
        root: Path = Path("/"),
    ) -> None:
        postfix = program("postfix")
        if os.geteuid() != 0:
            raise missing("Postfix can only be started by root")
        self._user = _user_of("postfix", root)
        self.directory = Path(tempfile.mkdtemp(prefix="postfix-"))
        self.directory.chmod(0o755)
        self.port, self.submission_port = free_port(), free_port()
        self.log = self.directory / "mail.log"
        self._make_directories()
        settings = {**self._basics(domains), **_restrictions(asked), **(parameters or {})}
        if users:
            settings |= self._sasl(users)
        self._write_configuration(settings, submission)
        start = [*_inside(root), postfix, "-c", f"{self.directory}/etc", "start-fg"]
        self._process = Process(start, self.directory / "output")
        try:
            wait_until(lambda: listening(self.port) or self._process.popen.poll() is not None, "Postfix listening")
            if self._process.popen.poll() is not None:
                raise RuntimeError(f"Postfix did not start: {self._process.output()}{self.log_text()}")
        except Exception:
            self.stop()
            raise

    def _make_directories(self) -> None:
        for name in ("etc", "queue", "data", "mail"):
            (self.directory / name).mkdir()
        os.chown(self.directory / "data", *self._user)
        for name in ("", "new", "cur", "tmp"):
            box = self.directory / "mail" / "box" / name
            box.mkdir()
            os.chown(box, _NOBODY, _NOBODY)

    def _basics(self, domains: Sequence[str]) -> dict[str, str]:
        return {
            "compatibility_level": "3.6",
            "import_environment": f"MAIL_CONFIG MAIL_LOGTAG LANG=C {MARK}",
            "queue_directory": f"{self.directory}/queue",
            "data_directory": f"{self.directory}/data",
            "maillog_file": str(self.log),
            "maillog_file_prefixes": str(self.directory),
            "myhostname": "mx.example.com",
            "mydestination": "",
            "alias_maps": "",
            "alias_database": "",
            "mynetworks": "127.0.0.0/8",
            "inet_interfaces": "127.0.0.1",
            "inet_protocols": "ipv4",
            "smtputf8_enable": "yes",
            "smtpd_authorized_xclient_hosts": "127.0.0.0/8",
            "smtpd_relay_restrictions": "permit_sasl_authenticated, reject_unauth_destination",
            "smtpd_peername_lookup": "no",
            "virtual_mailbox_domains": " ".join(domains),
            "default_transport": "virtual",
            "virtual_mailbox_base": f"{self.directory}/mail",
            "virtual_mailbox_maps": "static:box/",
            "virtual_uid_maps": f"static:{_NOBODY}",
            "virtual_gid_maps": f"static:{_NOBODY}",
            "smtpd_sasl_auth_enable": "yes",
            "smtpd_error_sleep_time": "0",
            "smtpd_client_connection_count_limit": "0",
        }

    def _sasl(self, users: Mapping[str, str]) -> dict[str, str]:
        """Real AUTH: Cyrus SASL with a password file."""
        passwords = self.directory / "sasldb2"
        for name, password in users.items():
            words = [program("saslpasswd2"), "-p", "-c", "-f", str(passwords), "-u", "mx.example.com", name]
            subprocess.run(words, input=password.encode(), check=True)
        os.chown(passwords, *self._user)
        sasl = self.directory / "etc" / "sasl"
        sasl.mkdir()
        (sasl / "smtpd.conf").write_text(_SASL.format(file=passwords))
        return {"cyrus_sasl_config_path": str(sasl), "smtpd_sasl_local_domain": "mx.example.com"}

    def _write_configuration(self, settings: Mapping[str, str], submission: str) -> None:
        services = _MASTER.format(port=self.port)
        if submission:
            services += f"{self.submission_port} inet n - n - - smtpd\n{submission}\n"
        (self.directory / "etc" / "master.cf").write_text(services)
        main = self.directory / "etc" / "main.cf"
        main.write_text("".join(f"{name} = {value}\n" for name, value in settings.items()))
        # Postfix waits before it reads a file that was modified within the last second.
        os.utime(main, (1e9, 1e9))

    def log_text(self) -> str:
        """Return the log of Postfix."""
        return self.log.read_text("utf-8", "replace") if self.log.exists() else ""

    def delivered(self, count: int, seconds: float = HANGS) -> list[Message]:
        """Wait for ``count`` messages in the mailbox; return them, one for each recipient.

        :raises TimeoutError: if fewer arrive.
        """
        new = self.directory / "mail" / "box" / "new"
        wait_until(lambda: len(list(new.iterdir())) >= count, f"delivery of {count} messages", seconds)
        return [message_from_bytes(path.read_bytes()) for path in sorted(new.iterdir())]

    def stop(self) -> None:
        """Stop it and remove its directory."""
        # The process is a shell that waits for master(8), and ends with it.
        master = self.directory / "queue" / "pid" / "master.pid"
        if master.exists() and self._process.popen.poll() is None:
            os.kill(int(master.read_text()), signal.SIGTERM)
            wait_until(lambda: self._process.popen.poll() is not None, "the end of Postfix")
        self._process.stop()
        shutil.rmtree(self.directory, ignore_errors=True)


def _user_of(name: str, root: Path) -> tuple[int, int]:
    """Return the ids of a user of a system and its group."""
    lines = [line.split(":") for line in (root / "etc" / "passwd").read_text().splitlines()]
    return next((int(fields[2]), int(fields[3])) for fields in lines if fields[0] == name)


def _inside(root: Path) -> list[str]:
    """Return what starts a program inside a root that shares /tmp with this system, as long as the program runs."""
    if root == Path("/"):
        return []
    return [program("unshare"), "--mount", "sh", "-ec", f'mount --bind /tmp {root}/tmp; exec chroot {root} "$@"', "sh"]


def _restrictions(asked: Mapping[str, Sequence[str]]) -> dict[str, str]:
    return {
        STAGES[stage]: ", ".join(f"check_policy_service {endpoint}" for endpoint in endpoints)
        for stage, endpoints in asked.items()
    }
