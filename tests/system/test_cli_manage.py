"""``chapps-cli``: entries of the book, limits, overrides and exemptions, with a running service."""

from __future__ import annotations

import csv
import time

import pytest

from tests.support.command_line import CommandLine
from tests.support.policy_client import inbound, outbound
from tests.support.servers.service import Service, new_name, shared_service


@pytest.fixture
def service() -> Service:
    return shared_service()


@pytest.fixture
def cli(service: Service) -> CommandLine:
    return CommandLine(service.config, time.time())


@pytest.fixture
def bob(cli: CommandLine) -> str:
    """A user who may send 10 messages from a domain of his own."""
    name = new_name("bob")
    cli.ok("quotas", "create", f"q {name}", "10")
    cli.ok("domains", "create", f"{name}.example")
    cli.ok("users", "create", name, "--quota", f"q {name}", "--domain", f"{name}.example")
    return name


def send(service: Service, user: str, **more: str) -> str:
    with service.client() as policy:
        return policy.ask(outbound(sasl_username=user, sender=f"any@{user}.example", **more))


# --- entries ---


def test_a_user_is_created_with_quota_domains_and_addresses(cli: CommandLine, service: Service, bob: str) -> None:
    email = new_name("sales") + "@example.org"
    assert cli.ok("emails", "create", email, "--user", bob) == f"Email {email} created.\n"
    user = cli.json("show", bob)
    assert user["quota"]["quota"] == 10
    assert [each["name"] for each in user["emails"]] == [email]
    assert send(service, bob) == "DUNNO"


def test_a_user_who_may_send_nothing_yet_comes_with_a_remark(cli: CommandLine) -> None:
    name = new_name("new")
    ran = cli.run("users", "create", name)
    assert (ran.code, ran.out) == (0, f"User {name} created.\n")
    assert ran.err.startswith(f"chapps-cli: User {name} may send nothing yet, with no quota: ")


def test_a_name_that_is_taken_is_refused(cli: CommandLine, bob: str) -> None:
    ran = cli.run("users", "create", bob)
    assert (ran.code, ran.out) == (1, "")
    assert f"A user named {bob} exists already." in ran.err


def test_an_invalid_name_is_refused_with_what_is_expected(cli: CommandLine) -> None:
    ran = cli.run("domains", "create", "not a domain")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("chapps-cli: name must be ")


def test_lists_have_names_instead_of_ids(cli: CommandLine, bob: str) -> None:
    other = new_name("pooled") + ".example"
    cli.ok("domains", "create", other, "--pool-quota", f"q {bob}", "--check-spf")
    assert f"q {bob}" in cli.ok("domains", "list", other)
    [user] = csv.DictReader(cli.ok("users", "list", bob, "--csv").splitlines())
    assert (user["name"], user["quota"], user["domains"]) == (bob, f"q {bob}", f"{bob}.example")
    assert bob in cli.ok("users", "list", bob.upper())
    assert cli.json("quotas", "list", f"q {bob}")[0]["quota"] == 10
    assert cli.ok("emails", "list", "nowhere") == "There are no emails with nowhere in their names.\n"


def test_a_list_says_that_there_may_be_more(cli: CommandLine) -> None:
    stem = new_name("many")
    for number in range(3):
        cli.ok("users", "create", f"{stem}-{number}")
    ran = cli.run("users", "list", stem, "--limit", "2", "--json")
    assert ran.err == "chapps-cli: there may be more: the first 2 are listed, --limit 0 lists all\n"
    assert len(cli.json("users", "list", stem, "--limit", "0")) == 3


def test_users_near_a_limit_are_listed_with_what_they_used(cli: CommandLine, service: Service, bob: str) -> None:
    for _ in range(9):
        send(service, bob)
    rows = {row["name"]: row for row in cli.json("users", "list", "--near", "80")}
    assert rows[bob]["used"] == [f"9 of 10 recipients (q {bob})"]
    assert f"9 of 10 recipients (q {bob})" in cli.ok("users", "list", "--near", "80")
    assert bob not in cli.ok("users", "list", "--near", "100")


def test_entries_are_deleted_by_name(cli: CommandLine, bob: str) -> None:
    assert cli.run("users", "delete", bob, "nobody") == (1, "", "chapps-cli: There is no user named nobody.\n")
    assert cli.ok("users", "delete", bob, "--yes") == f"Deleted: {bob}.\n"
    assert cli.run("show", bob).code == 1
    cli.ok("domains", "delete", f"{bob}.example")
    cli.ok("quotas", "delete", f"q {bob}")


# --- limits ---


def test_limits_of_a_quota_are_added_changed_and_deleted(cli: CommandLine, service: Service, bob: str) -> None:
    quota = f"q {bob}"
    assert cli.ok("limits", "list", quota) == f"Quota {quota} has no limits besides its own number.\n"
    assert cli.ok("limits", "add", quota, "hour", "1", "--window", "1h") == f"Quota {quota} has limit hour now.\n"
    assert send(service, bob) == "DUNNO"
    assert send(service, bob).startswith("REJECT")
    cli.ok("limits", "change", quota, "hour", "--amount", "3", "--unit", "messages")
    [limit] = cli.json("limits", "list", quota)
    assert (limit["amount"], limit["unit"], limit["window"]) == (3, "messages", 3600)
    assert {row["name"] for row in cli.json("limits", "show", bob)} == {"", "hour"}
    assert "hour" in cli.ok("limits", "show", bob)
    assert cli.run("limits", "change", quota, "hour").code == 2
    cli.ok("limits", "delete", quota, "hour")
    assert cli.run("limits", "delete", quota, "hour").err == f"chapps-cli: quota {quota} has no limit named hour\n"


# --- overrides and exemptions ---


@pytest.mark.parametrize("of", ["user", "domain"])
def test_suspend_and_release_are_in_effect_for_the_next_message(
    cli: CommandLine, service: Service, bob: str, of: str
) -> None:
    # The domain that applies to a login that is no address is that of the sender.
    name = [bob] if of == "user" else [f"{bob}.example", "--domain"]
    told = f"{name[0]} may not send mail until it is released.\n"
    assert cli.ok("suspend", *name, "--reason", "hacked") == told
    assert "hacked" in send(service, bob)
    assert "hacked" in cli.ok("overrides", "list", *name)
    if of == "user":
        assert "Suspended until it is released: hacked." in cli.ok("why", bob)
        assert "cannot send mail" in cli.ok("show", bob)
    assert cli.ok("release", *name) == f"{name[0]} is no longer suspended.\n"
    assert send(service, bob) == "DUNNO"
    assert cli.run("release", *name) == (1, "", f"chapps-cli: {name[0]} is not suspended\n")


def test_suspend_until_a_time_can_defer(cli: CommandLine, service: Service, bob: str) -> None:
    assert cli.ok("suspend", bob, "--until", "2h", "--defer").startswith(f"{bob} may not send mail until 20")
    assert not send(service, bob).startswith(("REJECT", "DUNNO"))
    [override] = cli.json("overrides", "list", bob)
    assert override["until"] == pytest.approx(time.time() + 7200, abs=600)
    cli.ok("overrides", "end", str(override["id"]))
    assert cli.ok("overrides", "list", bob) == "There are no overrides.\n"
    assert cli.run("overrides", "end", str(override["id"])).code == 1


def test_raise_lets_a_user_send_more(cli: CommandLine, service: Service, bob: str) -> None:
    assert cli.run("raise", bob, "5").code == 2
    assert cli.ok("raise", bob, "5", "--until", "1d", "--reason", "news").startswith(f"{bob} may send 5 more until 20")
    assert service.remaining(bob) == 15
    assert cli.run("raise", bob, "5", "--until", "yesterday").err.startswith("chapps-cli: until must be ")
    assert cli.run("raise", "nobody", "5", "--until", "1d").err == "chapps-cli: There is no user named nobody.\n"


def test_an_exempt_client_is_not_greylisted(cli: CommandLine, service: Service) -> None:
    domain = new_name("grey") + ".example"
    cli.ok("domains", "create", domain, "--greylist")
    with service.client("greylisting") as policy:
        request = inbound(recipient=f"bob@{domain}", client_address="198.18.1.7")
        assert policy.ask(request).startswith("DEFER")
        told = cli.ok("exempt", "client", "198.18.1.0/24", "--from", "greylisting", "--from", "spf", "--until", "1d")
        assert told.startswith("198.18.1.0/24 is exempt from greylisting until 20")
        assert policy.ask(request) == "DUNNO"
        rows = [row for row in cli.json("exemptions", "list") if row["value"] == "198.18.1.0/24"]
        assert {row["scope"] for row in rows} == {"greylisting", "spf"}
        for row in rows:
            cli.ok("exemptions", "end", str(row["id"]))
        assert policy.ask(request).startswith("DEFER")


def test_an_exemption_of_a_sender_domain_is_accepted(cli: CommandLine) -> None:
    value = f".{new_name('d')}.example"
    told = cli.ok("exempt", "sender-domain", value, "--from", "spf", "--until", "1h")
    assert told.startswith(f"{value} is exempt from spf until ")
    assert cli.run("exempt", "host", "x", "--from", "spf", "--until", "1h").code == 2
    assert cli.run("exempt", "client", "x", "--from", "spf", "--until", "1h").code == 1
    assert cli.run("exempt", "client", "192.0.2.1", "--from", "mail", "--until", "1h").code == 1
