"""CONTRIBUTING.md, "Adding a policy", does what it says."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.support.paths import ROOT

ASK = """
import sys
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from chapps_tw.config.load import load
from chapps_tw.config.render import render
from chapps_tw.outbound import OutboundPPR
from chapps_tw.application.application import Application

settings = load(sys.argv[1])
assert "[RecipientLimitPolicy]" in render(settings)
board = Application(settings, reactor).switchboards["bulk"]
for count in ("3", "4"):
    request = OutboundPPR({"protocol_state": "DATA", "recipient_count": count}, cfg=settings)
    for answer in (board.decide(request), board.explain(request)):
        print(Deferred.fromCoroutine(answer).result)
"""


def edits() -> list[tuple[str, str, str]]:
    """File, the line it goes above (empty: a new file), and the block, of each edit that the document tells."""
    section = (ROOT / "CONTRIBUTING.md").read_text().split("## Adding a policy")[1].split("\n## ")[0]
    step = re.compile(
        r"^\*\*`(?P<file>[^`]+)`\*\*,(?P<where>.*?)```python\n(?P<block>.*?)```", re.DOTALL | re.MULTILINE
    )
    found = []
    for match in step.finditer(section):
        anchor = re.search(r"above `(.*?)`(?: of `(.*?)`)?", match["where"])
        lines = "\n".join(part for part in anchor.groups() if part) if anchor else ""
        found.append((match["file"], lines, match["block"]))
    return found


def test_the_documented_edits_make_a_working_policy(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "chapps_tw", tmp_path / "chapps_tw", ignore=shutil.ignore_patterns("__pycache__"))
    for file, anchor, block in edits():
        target = tmp_path / file
        before = target.read_text() if anchor else ""
        assert not anchor or before.count("\n" + anchor) == 1, (file, anchor)
        target.write_text(before.replace("\n" + anchor, "\n" + block + anchor) if anchor else block)
    config = tmp_path / "chapps.ini"
    config.write_text(
        f"[CHAPPS]\ndata_dir = {tmp_path}\n[Log]\nfile =\n[RecipientLimitPolicy]\nlimit = 3\n"
        "[SenderDomainAuthPolicy]\nnull_sender_ok = True\n"
        "[Listener bulk]\nlisten = tcp:1\npolicies = SenderDomainAuthPolicy, RecipientLimitPolicy\n"
    )
    command = [sys.executable, "-c", ASK, str(config)]
    asked = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert asked.returncode == 0, asked.stderr
    within, within_explained, over, over_explained = asked.stdout.splitlines()
    assert "action='DUNNO'" in within and "within_quota" in within_explained
    assert "action='REJECT 4 recipients, 3 are allowed'" in over and "REJECT 4 recipients" in over_explained


def test_every_edit_of_the_document_is_found() -> None:
    assert [Path(file).name for file, _, _ in edits()] == [
        "recipient_limit.py",
        "settings.py",
        "settings.py",
        "settings.py",
        "application.py",
    ]
