"""A third-party package that adds a policy, installed into a separate directory."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from chapps_tw.policies.registry import GROUP
from tests.support.paths import ROOT

HEAD = """
from dataclasses import dataclass
from typing import ClassVar
from chapps_tw.config.settings import MODE, ON_FAILURE, Contradiction, PolicySection, option
from chapps_tw.config.values import whole
from chapps_tw.mail.decision import Decision, ReasonCode
from chapps_tw.policies.spec import Direction, PolicySpec
"""

POLICY = """
class Reasons(ReasonCode):
    HEAVY = "too_heavy", "The message is too heavy."

@dataclass(frozen=True)
class Section(PolicySection):
    section: ClassVar[str] = "WeightPolicy"
    mode: str = option("enforce", *MODE)
    on_failure: str = option("defer", *ON_FAILURE)
    weight: int = option("5", "Kilograms.", whole(1, 9))
    least: int = option("1", "Kilograms.", whole(0, 9))

    def contradictions(self):
        if self.least > self.weight:
            yield Contradiction("least", "must not be more than weight", ("weight",))

class Policy:
    name = "WeightPolicy"

    async def decide(self, request, earlier=()):
        return Decision("REJECT heavy", Reasons.HEAVY, self.name)

    explain = decide

SPEC = PolicySpec(Section, Direction.OUTBOUND, lambda use: Policy(), Reasons)
"""


def documented() -> Mapping[str, str]:
    """Return the files of the package that CONTRIBUTING.md describes, by name."""
    section = (ROOT / "CONTRIBUTING.md").read_text().split("## Adding a policy")[1].split("\n## ")[0]
    step = re.compile(r"^\*\*`([^`]+)`\*\*:[^`]*\n\n```\w+\n(.*?)```", re.DOTALL | re.MULTILINE)
    return dict(step.findall(section))


def install(directory: Path, source: str = POLICY, package: str = "weight", entry: str = "WeightPolicy") -> Path:
    """Install a package of version 1.2 into a directory, as pip does; return its ``.dist-info``.

    :param source: of its only module, after :data:`HEAD`; declares the policy as ``SPEC``.
    """
    (directory / f"{package}.py").write_text(HEAD + source)
    info = directory / f"{package}-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(f"[{GROUP}]\n{entry} = {package}:SPEC\n")
    return info


def beside(directory: Path) -> Mapping[str, str]:
    """Return an environment whose import path has this project and a directory of packages."""
    return {"PYTHONPATH": f"{ROOT}{os.pathsep}{directory}"}
