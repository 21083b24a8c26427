"""Reading a configuration file that a test writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from chapps_tw.config.load import load
from chapps_tw.config.settings import ConfigError, Settings


def read(tmp_path: Path, text: str, **environ: str) -> Settings:
    file = tmp_path / "chapps.ini"
    file.write_text(text)
    # The mode with which the service writes it, since it may contain secrets.
    file.chmod(0o600)
    return load(str(file), environ)


def problems(tmp_path: Path, text: str, **environ: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text, **environ)
    return caught.value.problems
