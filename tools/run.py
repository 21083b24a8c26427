"""``make run``: runs the service with embedded stores, in ./var, with two example users."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from chapps_tw.config.load import load
from chapps_tw.config.settings import Settings
from chapps_tw.policies.registry import installed

ROOT = Path(__file__).resolve().parents[1]
VAR = ROOT / "var"
CONFIG = VAR / "chapps.ini"
ALICE = "--user alice@example.com --recipient friend@example.net"

HINTS = """
CHAPPS-TW is running, with its files in {var}. Press Ctrl-C to stop it. It listens on:
{listeners}

To try in another terminal, in {root}:

1. Send a request as Postfix does. Alice may send as example.com, but not as example.org:
   {cli} ask {alice} --sender alice@example.com
   {cli} ask {alice} --sender alice@example.org
   or: printf 'request=smtpd_access_policy\\nprotocol_state=RCPT\\nsasl_username=alice@example.com\\nsender=alice@example.com\\nrecipient=friend@example.net\\ninstance=%s\\n\\n' $(date +%s) | nc -w 1 127.0.0.1 {port}

2. Show what remains of Alice's quota, and what was decided:
   {cli} token show | sed 's/^/Authorization: Bearer /' | curl -H @- '{api}/live/quota/0?name=alice@example.com'
   {cli} why alice@example.com
   or in a browser: {api}/ui/ (the token is in {var}/api-token)

3. Configure Postfix for authenticated users: in master.cf, below the line that begins with "submission". (In main.cf
   these lines would apply to all incoming mail too, and refuse it.) At DATA, mail that Postfix has refused before
   does not count against the quota:
     -o smtpd_relay_restrictions=permit_sasl_authenticated,reject
     -o {{ smtpd_data_restrictions = check_policy_service {{ inet:127.0.0.1:{port}, timeout=5s, {{ default_action = 451 4.3.0 Try again later }} }} }}
"""  # noqa: E501


def main() -> int:
    VAR.mkdir(mode=0o700, exist_ok=True)
    if not CONFIG.exists():
        defaults = {**os.environ, "CHAPPS_CHAPPS_DATA_DIR": str(VAR)}
        cli("--config", "", "admin", "flush-config", "--to", str(CONFIG), env=defaults)
    settings = load(str(CONFIG), os.environ, added=installed().added)
    taken = [endpoint for endpoint in endpoints(settings).values() if is_taken(endpoint)]
    if taken:
        print("Another program listens there already:", *taken, sep="\n  ", file=sys.stderr)
        print(f"Stop it, or choose other ports in {CONFIG}.", file=sys.stderr)
        return 1
    cli("--config", str(CONFIG), "admin", "add-examples")
    return serve(settings)


def cli(*arguments: str, env: dict[str, str] | None = None) -> None:
    command = [sys.executable, "-m", "chapps_tw.application.admin", *arguments]
    if subprocess.run(command, env=env, stdout=subprocess.DEVNULL).returncode:
        sys.exit(1)


def endpoints(settings: Settings) -> dict[str, str]:
    """Return the endpoints to listen on, by name."""
    found = {listener.name: listener.listen for listener in settings.listeners}
    return {**found, "HTTP API": settings.api.listen} if settings.api.listen else found


def is_taken(endpoint: str) -> bool:
    """Return whether the port of a TCP endpoint is in use."""
    if port_of(endpoint) == "PORT":
        return False
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", int(port_of(endpoint))))
        except OSError:
            return True
    return False


def serve(settings: Settings) -> int:
    """Run the service until it stops; print the hints once it is ready."""
    twistd = str(Path(sys.executable).with_name("twistd"))
    with tempfile.TemporaryDirectory() as directory, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(f"{directory}/notify")
        service = subprocess.Popen(
            [twistd, "-n", "--pidfile=", "chapps", "--config", str(CONFIG)],
            env={**os.environ, "NOTIFY_SOCKET": f"{directory}/notify"},
        )
        # The terminal sends Ctrl-C to the service too; wait for it to stop.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda *_: service.terminate())
        if is_ready(service, notify):
            print(hints(settings), flush=True)
        code = service.wait()
    return 0 if code in (-signal.SIGINT, -signal.SIGTERM) else code


def is_ready(service: subprocess.Popen[bytes], notify: socket.socket) -> bool:
    """Wait until the service reports that it is ready (sd_notify), or has stopped."""
    notify.settimeout(0.1)
    while service.poll() is None:
        try:
            if b"READY=1" in notify.recv(4096):
                return True
        except TimeoutError:
            continue
    return False


def hints(settings: Settings) -> str:
    """Return the addresses, and commands to try."""
    return HINTS.format(
        var=VAR.relative_to(ROOT),
        listeners="\n".join(f"   {name}: {endpoint}" for name, endpoint in endpoints(settings).items()),
        root=ROOT,
        cli=f".venv/bin/chapps-cli --config {CONFIG.relative_to(ROOT)}",
        alice=ALICE,
        port=port_of(settings.listeners[0].listen),
        api=f"http://127.0.0.1:{port_of(settings.api.listen)}",
    )


def port_of(endpoint: str) -> str:
    match = re.match(r"tcp6?:(\d+)", endpoint)
    return match[1] if match else "PORT"


if __name__ == "__main__":
    sys.exit(main())
