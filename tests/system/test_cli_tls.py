"""``chapps-cli`` and an HTTP API with TLS."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.command_line import CommandLine
from tests.support.servers.common import free_port
from tests.support.servers.redis import Authority
from tests.support.servers.service import Service

NAME = "chapps.example.com"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def service(authority: Authority) -> Iterator[Service]:
    certificate, key = authority.issue(NAME)
    endpoint = f"ssl:{free_port()}:interface=127.0.0.1:privateKey={key}:certKey={certificate}"
    service = Service({"API": {"listen": endpoint, "hosts": f"{NAME} localhost"}}).start()
    yield service
    service.remove()


def test_the_certificate_of_the_configured_name_is_accepted_on_loopback(
    service: Service, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.path))
    assert CommandLine(service.config, time.time()).ok("users", "list") == "There are no users.\n"


def test_the_certificate_of_another_name_is_refused(
    service: Service, authority: Authority, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.path))
    other = tmp_path / "chapps.ini"
    other.write_text(service.config.read_text().replace(f"hosts = {NAME} ", "hosts = "))
    ran = CommandLine(other, time.time()).run("users", "list")
    assert ran.code == 3
    assert "Hostname mismatch, certificate is not valid for 'localhost'" in ran.err


def test_a_certificate_of_an_unknown_authority_is_refused_with_the_remedy(service: Service) -> None:
    ran = CommandLine(service.config, time.time()).run("users", "list")
    assert ran.code == 3
    assert "unable to get local issuer certificate" in ran.err
    assert "SSL_CERT_FILE" in ran.err
