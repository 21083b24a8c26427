"""``chapps-cli import-file``, with a running service."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.support.command_line import CommandLine
from tests.support.policy_client import outbound
from tests.support.servers.service import Service, new_name, shared_service


@pytest.fixture
def service() -> Service:
    return shared_service()


@pytest.fixture
def cli(service: Service) -> CommandLine:
    return CommandLine(service.config, time.time())


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "lines"


def test_lines_are_in_effect_for_the_next_message(cli: CommandLine, service: Service, file: Path) -> None:
    ann, domain, quota = new_name("ann"), new_name("d") + ".example", new_name("q")
    cli.ok("users", "create", ann)
    cli.ok("quotas", "create", quota, "5")
    request = outbound(sasl_username=ann, sender=f"a@{domain}")
    with service.client() as policy:
        assert policy.ask(request).startswith("REJECT")
        file.write_text(f"# New customers\n\nallow:{ann}:{domain}\nquota:{ann}:{quota}\n")
        told = "2 lines imported: 1 allowed, 0 denied, 1 quotas set, 1 domains and addresses created.\n"
        assert cli.ok("import-file", str(file), "--create") == told
        assert policy.ask(request) == "DUNNO"
        file.write_text(f"deny:{ann}:{domain}\n")
        assert cli.json("import-file", str(file))["denied"] == 1
        assert policy.ask({**request, "instance": new_name("i")}).startswith("REJECT")
    assert service.remaining(ann) == 4


def test_bad_lines_are_reported_with_their_numbers_and_nothing_is_done(cli: CommandLine, file: Path) -> None:
    ann, domain = new_name("ann"), new_name("d") + ".example"
    cli.ok("users", "create", ann)
    file.write_text(f"allow:{ann}:{domain}\nallow:nobody:{domain}\n# x\nquota:{ann}:none\n")
    told = ["line 2: there is no user named nobody", "line 4: there is no quota named none"]
    told.append("2 lines name what does not exist: nothing is done.")
    expected = "".join(f"chapps-cli: {line}\n" for line in told)
    assert cli.run("import-file", str(file), "--create") == (1, "", expected)
    assert cli.run("domain", "show", domain).code == 1
    file.write_text("one:two\n")
    assert cli.run("import-file", str(file)).err.startswith("chapps-cli: line 1 must be allow:USER:DOMAIN")


def test_a_large_file_is_imported_by_an_authorized_token_only(cli: CommandLine, service: Service, file: Path) -> None:
    domains = [f"{new_name('d')}.example" for _ in range(2000)]
    ann = new_name("ann") + "-" + "x" * 50
    cli.ok("users", "create", ann)
    # More than other bodies may have.
    lines = [f"allow:{ann}:{domain}\n" for domain in domains]
    file.write_text("".join(lines) + "# padding\n" * 150_000)
    assert file.stat().st_size > 1 << 20
    reader = service.directory / new_name("reader")
    reader.write_text(cli.ok("token", "create", reader.name, "--scope", "operator"))
    told = "chapps-cli: This needs a token with scope full; the scope of this one is operator.\n"
    assert cli.run("import-file", str(file), "--create", "--token-file", str(reader)) == (1, "", told)
    assert cli.json("import-file", str(file), "--create")["created"] == 2000
    [record] = cli.json("audit", "--kind", "import", "--limit", "1")
    assert (record["action"], record["after"]["users"]) == ("import", [ann])


def test_a_file_that_is_too_large_or_missing_is_reported(cli: CommandLine, file: Path) -> None:
    assert cli.run("import-file", str(file)).err == f"chapps-cli: {file}: cannot be read: No such file or directory\n"
    with file.open("wb") as content:
        content.truncate((16 << 20) + 1)
    assert cli.run("import-file", str(file)) == (1, "", "chapps-cli: The body exceeds 16777216 bytes.\n")
    file.write_bytes(b"")
    assert cli.run("import-file", str(file)) == (1, "", "chapps-cli: The body is missing.\n")


def test_json_of_an_import_has_the_bound_of_other_bodies(service: Service) -> None:
    status, answer = service.http("/import/", "POST", "#" * (1 << 20))
    assert (status, answer["detail"]) == (
        413, "JSON of more than 1048576 bytes is not accepted: send it as text/plain."
    )  # fmt: skip
    assert service.http("/import/", "POST", "# nothing\n")[1]["response"]["lines"] == 0
