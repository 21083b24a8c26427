"""The Containerfile and the compose file name what exists: options, files and ports."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from chapps_tw.config.load import load
from chapps_tw.config.settings import Settings
from tests.support.paths import ROOT

CONTAINERFILE = (ROOT / "Containerfile").read_text()
IMAGE = dict(re.findall(r"(CHAPPS_\w+)=(\S+)", CONTAINERFILE))
COMPOSE = (ROOT / "conf" / "compose.yaml").read_text()


def ports(settings: Settings) -> set[str]:
    endpoints = [each.listen for each in settings.listeners] + [settings.api.listen]
    return {endpoint.split(":")[1] for endpoint in endpoints}


def test_the_image_listens_on_all_addresses_on_the_usual_ports() -> None:
    settings = load("", IMAGE)
    assert ports(settings) == ports(Settings())
    assert {each.listen.count(":") for each in settings.listeners} == {1}
    (exposed,) = re.findall(r"^EXPOSE (.*)$", CONTAINERFILE, re.MULTILINE)
    assert ports(settings) <= set(exposed.split())


def test_the_image_does_not_run_as_root() -> None:
    user, *others = re.findall(r"^USER (\d+):\d+$", CONTAINERFILE, re.MULTILINE)
    assert int(user) > 0 and not others


def test_what_the_image_is_made_of_exists_and_is_not_ignored() -> None:
    kept = set(re.findall(r"^!(\S+)$", (ROOT / ".containerignore").read_text(), re.MULTILINE))
    copied = {
        name for names in re.findall(r"^COPY ([^-\n]+) \S+$", CONTAINERFILE, re.MULTILINE) for name in names.split()
    }
    assert copied == kept
    assert all((ROOT / name).exists() for name in copied)


def test_the_compose_file_publishes_the_ports_on_this_host_only() -> None:
    service = yaml.safe_load(COMPOSE)["services"]["chapps"]
    addresses, outer, inner = zip(*(each.split(":") for each in service["ports"]), strict=True)
    assert set(addresses) == {"127.0.0.1"}
    assert set(outer) == set(inner) == ports(Settings())


def test_the_variables_of_the_compose_file_are_options(tmp_path: Path) -> None:
    """Those of the profile with servers, too."""
    variables = dict(re.findall(r"^ +(?:# )?(CHAPPS_\w+): (.*)$", COMPOSE, re.MULTILINE))
    secret = tmp_path / "database"
    secret.write_text("secret\n")
    settings = load("", {**IMAGE, **variables, "CHAPPS_POLICYCONFIGADAPTER_DB_PASS_FILE": str(secret)})
    assert (settings.redis.server, settings.adapter.db_host) == ("redis", "postgresql")
