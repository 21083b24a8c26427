"""What the unit of systemd forbids the service."""

from __future__ import annotations

import subprocess
import sys
from configparser import ConfigParser

from tests.support.paths import ROOT

# prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN) forbids what MemoryDenyWriteExecute does, from Linux 6.3 on.
_USE_TLS = """
import ctypes, sys
from OpenSSL import SSL
if sys.argv[1] == "yes":
    assert ctypes.CDLL(None).prctl(65, 1, 0, 0, 0) == 0
SSL.Context(SSL.TLS_METHOD).set_verify(SSL.VERIFY_PEER, lambda *_: True)
"""


def test_the_service_may_use_tls() -> None:
    unit = ConfigParser(strict=False, interpolation=None)
    unit.read(ROOT / "conf" / "chapps.service")
    forbids = unit["Service"].get("MemoryDenyWriteExecute", "no")
    ran = subprocess.run([sys.executable, "-c", _USE_TLS, forbids], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
