"""Faulty configurations of Postfix, each with one fault, and what is found about it."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import pytest

from chapps_tw.config.limits import RateLimit, parse_window
from chapps_tw.config.settings import (
    GreylistingPolicy,
    Listener,
    OutboundQuotaPolicy,
    SenderDomainAuthPolicy,
    Settings,
)
from chapps_tw.interfaces.state import Unit
from chapps_tw.policies.stages import of_units
from chapps_tw.postfix_check.parameters import Parameters
from chapps_tw.postfix_check.source import Source
from tests.support.postfix_files import INBOUND, OUTBOUND, found, main_cf, master_cf, report, service

RECIPIENT, DATA, END = "smtpd_recipient_restrictions", "smtpd_data_restrictions", "smtpd_end_of_data_restrictions"
RELAY, CLIENT, SENDER = "smtpd_relay_restrictions", "smtpd_client_restrictions", "smtpd_sender_restrictions"
SUBMISSION = "master.cf, submission/inet"
SMTP = f"main.cf, smtp/inet, {RECIPIENT}"
GREYLISTING = INBOUND.replace("10227", "10226")

OK = Settings(grl=GreylistingPolicy(acceptance_message="OK"))
SHADOW = Settings(sda=SenderDomainAuthPolicy(mode="shadow"), oqp=OutboundQuotaPolicy(mode="shadow"))
UNIX = Settings(
    own_listeners=(
        Listener("out", "unix:/run/chapps/out", ("OutboundQuotaPolicy",)),
        Listener("in", "tcp:10227:interface=127.0.0.1", ("GreylistingPolicy",)),
    )
)
BULK = Settings(
    own_listeners=(*Settings().listeners, Listener("bulk", "tcp:10229", ("RateLimitPolicy",))),
)


def limited(unit: Unit, amount: int = 5) -> Settings:
    limit = RateLimit(name="big", per="user", unit=unit, amount=amount, window=parse_window("1d"))
    return Settings(
        limits=(limit,),
        own_listeners=(
            Listener("out", "tcp:10225:interface=127.0.0.1", ("OutboundQuotaPolicy", "RateLimitPolicy")),
            Listener("in", "tcp:10227:interface=127.0.0.1", ("GreylistingPolicy",)),
        ),
    )


class Case(NamedTuple):
    """A configuration.

    :ivar expected: severity, code and place of what is found.
    """

    name: str
    main: str
    master: str
    expected: list[tuple[str, str, str]]
    settings: Settings = Settings()


FAULTY = [
    Case("nothing_is_asked", main_cf(smtpd_recipient_restrictions="reject_unauth_destination"),
         master_cf(smtpd_data_restrictions=None), [("error", "nothing-asked", "main.cf")]),
    Case("an_own_listener_is_not_asked", main_cf(), master_cf(), [("error", "not-asked", "chapps.ini, bulk")], BULK),
    Case("a_default_listener_is_not_asked", main_cf(smtpd_recipient_restrictions="reject_unauth_destination"),
         master_cf(), [("note", "not-asked", "chapps.ini, inbound")]),
    Case("master_cf_overrides_main_cf_with_nothing", main_cf(smtpd_data_restrictions=OUTBOUND),
         master_cf({DATA: ""}, smtpd_data_restrictions=""),
         [("error", "overridden", f"{SUBMISSION}, {DATA}")]),
    Case("master_cf_overrides_main_cf_with_another_list", main_cf(smtpd_data_restrictions=OUTBOUND),
         master_cf({DATA: ""}, smtpd_data_restrictions="reject_unauth_pipelining"),
         [("error", "overridden", f"{SUBMISSION}, {DATA}")]),
    Case("users_log_in_on_port_25_too", main_cf(), master_cf({"smtpd_sasl_auth_enable": "yes"}),
         [("warning", "login-unchecked", "master.cf, smtp/inet, smtpd_sasl_auth_enable"),
          ("note", "login-on-inbound", SMTP)]),
    Case("outbound_for_the_world", main_cf(smtpd_data_restrictions=OUTBOUND), master_cf(),
         [("error", "outbound-for-world", f"main.cf, smtp/inet, {DATA}")]),
    Case("outbound_for_the_world_in_shadow_mode", main_cf(smtpd_data_restrictions=OUTBOUND), master_cf(),
         [("warning", "outbound-for-world", f"main.cf, smtp/inet, {DATA}")], SHADOW),
    Case("outbound_for_mynetworks", main_cf(),
         master_cf(smtpd_relay_restrictions="permit_mynetworks, permit_sasl_authenticated, reject"),
         [("warning", "outbound-for-mynetworks", f"{SUBMISSION}, {DATA}")]),
    Case("logged_in_users_are_permitted_ahead", main_cf(),
         master_cf(smtpd_data_restrictions=f"permit_sasl_authenticated, {OUTBOUND}",
                   smtpd_relay_restrictions="permit_mynetworks, permit_sasl_authenticated, reject"),
         [("error", "login-permitted-ahead", f"{SUBMISSION}, {DATA}"),
          ("warning", "outbound-for-mynetworks", f"{SUBMISSION}, {DATA}")]),
    Case("nobody_gets_to_it", main_cf(),
         master_cf(smtpd_data_restrictions=None,
                   smtpd_recipient_restrictions=f"permit_sasl_authenticated, reject, {OUTBOUND}"),
         [("error", "unreachable", f"{SUBMISSION}, {RECIPIENT}")]),
    Case("nobody_can_log_in", main_cf(), master_cf(smtpd_sasl_auth_enable=None),
         [("error", "no-login", "main.cf, submission/inet, smtpd_sasl_auth_enable")]),
    Case("warn_if_reject", main_cf(), master_cf(smtpd_data_restrictions=f"warn_if_reject {OUTBOUND}"),
         [("warning", "warn-if-reject", f"{SUBMISSION}, {DATA}")]),
    Case("inbound_at_data", main_cf(smtpd_recipient_restrictions="reject_unauth_destination",
                                    smtpd_data_restrictions=INBOUND), master_cf(),
         [("error", "stage-unfit", f"main.cf, smtp/inet, {DATA}")] * 2),
    Case("outbound_at_mail_without_delay", main_cf(smtpd_delay_reject="no"),
         master_cf(smtpd_data_restrictions=None, smtpd_sender_restrictions=OUTBOUND, smtpd_client_restrictions=
                   "permit_sasl_authenticated, reject"),
         [("error", "stage-unfit", f"{SUBMISSION}, {SENDER}")] * 2),
    Case("inbound_at_connect_too", main_cf(smtpd_delay_reject="no"), master_cf({CLIENT: INBOUND}),
         [("warning", "stage-useless", f"master.cf, smtp/inet, {CLIENT}")]),
    Case("bytes_before_the_end_of_the_message", main_cf(), master_cf(),
         [("error", "stage-unfit", f"{SUBMISSION}, {DATA}")], limited(Unit.BYTES)),
    Case("distinct_recipients_at_data", main_cf(), master_cf(),
         [("error", "stage-unfit", f"{SUBMISSION}, {DATA}")], limited(Unit.DISTINCT_RECIPIENTS)),
    Case("ok_makes_an_open_relay",
         main_cf(smtpd_relay_restrictions="", smtpd_recipient_restrictions=f"{INBOUND}, reject_unauth_destination"),
         master_cf(), [("error", "open-relay", SMTP)], OK),
    Case("ok_in_relay_restrictions", main_cf(smtpd_relay_restrictions=f"{INBOUND}, reject_unauth_destination",
                                             smtpd_recipient_restrictions=""),
         master_cf(), [("error", "open-relay", f"main.cf, smtp/inet, {RELAY}")], OK),
    Case("a_default_action_of_ok_makes_an_open_relay",
         main_cf(smtpd_relay_restrictions="",
                 smtpd_recipient_restrictions=f"{INBOUND.replace('DUNNO', 'OK')}, reject_unauth_destination"),
         master_cf(), [("error", "open-relay", SMTP)]),
    Case("ahead_of_reject_unauth_destination",
         main_cf(smtpd_relay_restrictions="", smtpd_recipient_restrictions=f"{INBOUND}, reject_unauth_destination"),
         master_cf(), [("warning", "ahead-of-reject-unauth", SMTP)]),
    Case("in_relay_restrictions", main_cf(smtpd_relay_restrictions=f"{INBOUND}, reject_unauth_destination",
                                          smtpd_recipient_restrictions=""),
         master_cf(), [("warning", "ahead-of-reject-unauth", f"main.cf, smtp/inet, {RELAY}")]),
    Case("in_sender_restrictions", main_cf(smtpd_sender_restrictions=INBOUND, smtpd_recipient_restrictions=""),
         master_cf(smtpd_sender_restrictions=""),
         [("warning", "ahead-of-reject-unauth", f"main.cf, smtp/inet, {SENDER}")]),
    Case("twice_in_two_lists", main_cf(), master_cf({SENDER: INBOUND}),
         [("warning", "ahead-of-reject-unauth", f"master.cf, smtp/inet, {SENDER}"), ("warning", "asked-twice", SMTP)]),
    Case("twice_in_one_list", main_cf(smtpd_recipient_restrictions=f"reject_unauth_destination, {INBOUND}, {INBOUND}"),
         master_cf(), [("warning", "asked-twice", SMTP)]),
    Case("one_policy_by_two_listeners",
         main_cf(smtpd_recipient_restrictions=f"reject_unauth_destination, {GREYLISTING}, {INBOUND}"),
         master_cf(), [("warning", "asked-twice", SMTP)]),
    Case("at_two_stages", main_cf(), master_cf(smtpd_end_of_data_restrictions=OUTBOUND),
         [("note", "several-stages", f"{SUBMISSION}, {END}")]),
    Case("a_timeout_that_is_too_short",
         main_cf(smtpd_recipient_restrictions=f"reject_unauth_destination, {INBOUND.replace('25s', '5s')}"),
         master_cf(), [("warning", "timeout-short", SMTP)]),
    Case("a_timeout_of_all_services_that_is_too_short",
         main_cf(smtpd_policy_service_timeout="10s",
                 smtpd_recipient_restrictions=f"reject_unauth_destination, {INBOUND.replace('timeout=25s, ', '')}"),
         master_cf(), [("warning", "timeout-short", "main.cf, smtp/inet, smtpd_policy_service_timeout")]),
    Case("no_timeout",
         main_cf(smtpd_recipient_restrictions=f"reject_unauth_destination, {INBOUND.replace('timeout=25s, ', '')}"),
         master_cf(), [("warning", "timeout-default", SMTP)]),
    Case("no_default_action", main_cf(),
         master_cf(smtpd_data_restrictions="check_policy_service { inet:127.0.0.1:10225, timeout=5s }"),
         [("warning", "default-action-missing", f"{SUBMISSION}, {DATA}")]),
    Case("a_default_action_that_accepts_outbound_mail", main_cf(),
         master_cf(smtpd_data_restrictions="check_policy_service "
                   "{ inet:127.0.0.1:10225, timeout=5s, default_action=DUNNO }"),
         [("warning", "default-action-accepts", f"{SUBMISSION}, {DATA}")]),
    Case("a_wrong_port", main_cf(), master_cf(smtpd_data_restrictions=OUTBOUND.replace("10225", "10252")),
         [("error", "address-unknown", f"{SUBMISSION}, {DATA}")]),
    Case("a_wrong_address", main_cf(), master_cf(smtpd_data_restrictions=OUTBOUND.replace("127.0.0.1", "192.0.2.1")),
         [("error", "address-unknown", f"{SUBMISSION}, {DATA}")]),
    Case("a_service_of_others", main_cf(smtpd_recipient_restrictions=
                                        f"reject_unauth_destination, check_policy_service inet:[::1]:10023, {INBOUND}"),
         master_cf(), [("note", "service-of-others", SMTP)]),
    Case("a_socket_outside_the_chroot", main_cf(),
         service("smtp", {}, "y")
         + service("submission", {"smtpd_sasl_auth_enable": "yes", RELAY: "permit_sasl_authenticated,reject",
                                  RECIPIENT: "", DATA: OUTBOUND.replace("inet:127.0.0.1:10225", "unix:/run/chapps/out"),
                                  }, "y"),
         [("error", "socket-outside-chroot", f"{SUBMISSION}, {DATA}")], UNIX),
    Case("a_misspelled_socket", main_cf(),
         master_cf(smtpd_data_restrictions=OUTBOUND.replace("inet:127.0.0.1:10225", "unix:/run/chapps/oubt")),
         [("error", "address-unknown", f"{SUBMISSION}, {DATA}")],
         replace(UNIX, own_listeners=(Listener("out", "unix:/run/chapps/outb", ("OutboundQuotaPolicy",)),
                                      UNIX.own_listeners[1]))),
    Case("a_misspelled_attribute", main_cf(), master_cf({DATA: OUTBOUND.replace("timeout", "timout")}),
         [("error", "service-invalid", f"master.cf, smtp/inet, {DATA}")]),
    Case("no_address", main_cf(), master_cf({END: "check_policy_service"}),
         [("error", "service-invalid", f"master.cf, smtp/inet, {END}")]),
    Case("an_address_without_its_kind", main_cf(), master_cf({END: "check_policy_service 127.0.0.1:10225"}),
         [("error", "service-invalid", f"master.cf, smtp/inet, {END}")]),
    Case("a_brace_that_is_not_closed", main_cf(smtpd_data_restrictions="check_policy_service { inet:127.0.0.1:10225"),
         master_cf(), [("error", "list-invalid", f"main.cf, smtp/inet, {DATA}")]),
    Case("a_default_action_without_braces", main_cf(), master_cf(
         {DATA: "check_policy_service { inet:127.0.0.1:10225, timeout=5s, default_action=451 4.3.0 Try later }"}),
         [("error", "service-invalid", f"master.cf, smtp/inet, {DATA}")]),
    Case("a_misspelled_restriction", main_cf(), master_cf({END: "check_policy_servce inet:127.0.0.1:10225"}),
         [("error", "restriction-unknown", f"master.cf, smtp/inet, {END}")]),
    Case("permit_mynetworks_ahead",
         main_cf(smtpd_recipient_restrictions=f"permit_mynetworks, reject_unauth_destination, {INBOUND}"),
         master_cf(), [("note", "mynetworks-permitted", SMTP)]),
    Case("permit_mynetworks_ahead_of_outbound", main_cf(),
         master_cf(smtpd_data_restrictions=None,
                   smtpd_relay_restrictions="permit_mynetworks, permit_sasl_authenticated, reject",
                   smtpd_recipient_restrictions=f"permit_mynetworks, {OUTBOUND}, permit_sasl_authenticated, reject",
                   smtpd_client_restrictions="permit_mynetworks, permit_sasl_authenticated, reject"),
         [("note", "mynetworks-permitted", f"{SUBMISSION}, {RECIPIENT}")]),
    Case("local_mail", main_cf(), master_cf() + "pickup unix n - n 60 1 pickup\n",
         [("note", "local-mail", "master.cf, pickup/unix")]),
    Case("inbound_only_where_users_log_in", main_cf(smtpd_recipient_restrictions="reject_unauth_destination"),
         master_cf(smtpd_recipient_restrictions=INBOUND),
         [("error", "inbound-not-for-world", f"main.cf, submission/inet, {RECIPIENT}"),
          ("note", "login-on-inbound", f"{SUBMISSION}, {RECIPIENT}")]),
]  # fmt: skip


@pytest.mark.parametrize("case", FAULTY, ids=lambda case: case.name)
def test_a_faulty_configuration_gives_exactly_these_findings(case: Case) -> None:
    assert found(case.main, case.master, case.settings) == case.expected


def test_a_good_configuration_gives_none() -> None:
    assert found(main_cf(), master_cf()) == []


def test_every_finding_says_what_happens_and_every_fault_what_to_write() -> None:
    for case in FAULTY:
        for each in report(case.main, case.master, case.settings).findings:
            assert each.problem and each.effect, case.name
            assert each.remedy or each.severity == "note", case.name


def test_what_clients_in_mynetworks_send_is_told_with_local_mail() -> None:
    local = "pickup unix n - n 60 1 pickup\n"
    (finding,) = report(main_cf(), master_cf() + local).findings
    assert finding.effect.endswith("what clients in mynetworks send through smtp/inet")
    (finding,) = report(main_cf(smtpd_relay_restrictions="reject_unauth_destination"), master_cf() + local).findings
    assert finding.effect == "No policy sees it"


def test_ok_makes_no_open_relay_where_another_list_refuses_strangers() -> None:
    assert found(main_cf(), master_cf(), OK) == []
    ahead = main_cf(smtpd_recipient_restrictions=f"{INBOUND}, reject_unauth_destination")
    assert found(ahead, master_cf(), OK) == []


def test_limits_of_quotas_need_the_stage_of_their_unit() -> None:
    needs = list(of_units("limits of quotas", [Unit.BYTES]))
    assert found(main_cf(), master_cf(), needs=needs) == [("error", "stage-unfit", f"{SUBMISSION}, {DATA}")]
    at_end = master_cf(smtpd_data_restrictions=None, smtpd_end_of_data_restrictions=OUTBOUND)
    assert found(main_cf(), at_end, needs=needs) == []


def test_findings_that_differ_only_in_the_service_are_one() -> None:
    short = OUTBOUND.replace("timeout=5s", "timeout=1s")
    both = master_cf() + service(
        "submissions", {"smtpd_sasl_auth_enable": "yes", RELAY: "permit_sasl_authenticated, reject", RECIPIENT: ""}
    )
    main = main_cf(smtpd_data_restrictions=short)
    master = both.replace("smtp inet", "#smtp inet", 1).replace(f"  -o {{ {DATA} = {OUTBOUND} }}\n", "")
    place = f"main.cf, submission/inet, submissions/inet, {DATA}"
    assert ("warning", "timeout-short", place) in found(main, master)


# --- the running service ---


def state(listener: str, *stages: str, warnings: tuple[str, ...] = ()) -> dict[str, object]:
    return {
        "listener": listener,
        "stages": [{"stage": stage, "with_login": 1, "without_login": 0} for stage in stages],
        "peers": [{"peer": "192.0.2.25", "at": 1.0}] if stages else [],
        "warnings": list(warnings),
    }


def running(*states: dict[str, object]) -> list[dict[str, object]]:
    known = {each["listener"] for each in states}
    good = [state("outbound", "DATA"), state("greylisting"), state("inbound", "RCPT")]
    return [*(each for each in good if each["listener"] not in known), *states]


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        (running(), []),
        (running(state("outbound")), [("note", "never-asked", "running service, outbound")]),
        (running(state("outbound", "RCPT")), [("note", "never-asked", "running service, outbound")]),
        (running(state("greylisting", "RCPT")), [("note", "asked-by-others", "running service, greylisting")]),
        (
            running(state("inbound", "RCPT", warnings=("It was not applied",))),
            [("warning", "not-applied", "running service, inbound")],
        ),
        (running()[1:], [("warning", "not-running", "running service, outbound")]),
    ],
)
def test_what_was_asked_is_compared_with_what_should_be(
    states: list[dict[str, object]], expected: list[tuple[str, str, str]]
) -> None:
    assert found(main_cf(), master_cf(), running=states) == expected


# --- how the files are read ---


def test_restriction_classes_and_static_tables_are_followed() -> None:
    main = main_cf(
        smtpd_restriction_classes="ours, other",
        ours=f"reject_unknown_sender_domain, {OUTBOUND}",
        other="permit_auth_destination, reject",
    )
    for name in ("ours", "check_sender_access static:ours", "static:{ours}", "check_client_access static:{ours}"):
        (site,) = report(main, master_cf(smtpd_data_restrictions=name), Settings()).sites[1:]
        assert site.listener is not None and site.listener.name == "outbound", name
        assert site.restriction.via[-1] == "ours"


def test_a_class_that_only_a_table_may_name_is_said_to_be_unread() -> None:
    main = main_cf(smtpd_restriction_classes="ours", ours=OUTBOUND)
    master = master_cf(smtpd_data_restrictions="check_sender_access hash:/etc/postfix/senders")
    (finding,) = report(main, master).findings
    assert (finding.severity, finding.code) == ("note", "not-asked")
    assert "unless a table that was not looked into names ours" in finding.effect


# --- addresses ---


@pytest.mark.parametrize(
    ("listen", "endpoint", "is_ours"),
    [
        ("tcp:10225:interface=127.0.0.1", "inet:127.0.0.1:10225", True),
        ("tcp:10225:interface=127.0.0.1", "inet:localhost:10225", True),
        ("tcp:10225:interface=127.0.0.1", "inet:10225", True),
        ("tcp:10225:interface=127.0.0.1", "inet:[127.0.0.1]:10225", True),
        ("tcp:10225:interface=127.0.0.1", "inet:[::1]:10225", False),
        ("tcp:10225:interface=127.0.0.1", "inet:127.0.0.2:10225", False),
        ("tcp:10225:interface=127.0.0.1", "inet:127.0.0.1:10226", False),
        ("tcp:10225:interface=192.0.2.1", "inet:localhost:10225", False),
        ("tcp:10225:interface=192.0.2.1", "inet:policy.example.com:10225", True),
        ("tcp:10225", "inet:192.0.2.1:10225", True),
        ("tcp:10225", "inet:[2001:db8::1]:10225", False),
        ("tcp6:10225", "inet:127.0.0.1:10225", True),
        (r"tcp6:10225:interface=\:\:", "inet:127.0.0.1:10225", True),
        (r"tcp6:10225:interface=2001\:db8\:\:1", "inet:[2001:DB8:0::1]:10225", True),
        ("unix:/var/spool/postfix/chapps/out", "unix:chapps/out", True),
        ("unix:/var/spool/postfix/chapps/out:mode=660", "unix:/var/spool/postfix/chapps/out", True),
        ("unix:/run/out", "unix:/run/out", True),
        ("unix:/run/out", "unix:run/out", False),
        ("haproxy:tcp:10225", "inet:127.0.0.1:10225", True),
        ("systemd:domain=INET:index=0", "inet:127.0.0.1:10225", False),
    ],
)
def test_an_endpoint_of_postfix_is_ours_if_we_listen_there(listen: str, endpoint: str, is_ours: bool) -> None:
    settings = Settings(own_listeners=(Listener("out", listen, ("OutboundQuotaPolicy",)),))
    master = master_cf(smtpd_data_restrictions=f"check_policy_service {endpoint}")
    (site,) = [site for site in report(main_cf(), master, settings).sites if site.list == DATA]
    assert (site.listener is not None) is is_ours


def test_a_socket_of_systemd_is_taken_for_that_of_our_unit() -> None:
    settings = Settings(oqp=OutboundQuotaPolicy(listen="systemd:domain=INET:index=0"))
    assert found(main_cf(), master_cf(), settings) == []


def test_in_a_chroot_an_absolute_path_is_below_the_queue_directory() -> None:
    settings = Settings(own_listeners=(Listener("out", "unix:/var/spool/postfix/run/out", ("OutboundQuotaPolicy",)),))
    for chroot, level, is_ours in (("y", "3.6", True), ("n", "3.6", False), ("-", "3.6", False), ("-", "0", True)):
        master = service("submission", {DATA: "check_policy_service unix:/run/out"}, chroot)
        (site,) = report(main_cf(compatibility_level=level, smtpd_recipient_restrictions=None), master, settings).sites
        assert (site.listener is not None) is is_ours, (chroot, level)


def test_a_server_that_no_user_gets_through_needs_no_outbound_listener() -> None:
    # It inherits smtpd_recipient_restrictions from main.cf, too.
    again = service("127.0.0.1:10024", {CLIENT: "permit_mynetworks, reject", RELAY: "reject"})
    again += service("127.0.0.1:10025", {"smtpd_sasl_auth_enable": "yes", RECIPIENT: "permit_mynetworks, reject"})
    assert found(main_cf(), master_cf() + again) == []


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("$a b", "A b"),
        ("${a} $(a) $$a", "A A $a"),
        ("${a?yes}${none?no}", "yes"),
        ("${a:no}${none:other}", "other"),
        ("${none?{x}:{y $a}}${a?{x}:{y}}", "y Ax"),
        ("${{$a} == {A} ? {same} : {other}}", "same"),
        ("${{3.10} >=level {3.6} ? {new} : {old}}", "new"),
        ("${{$level} <level {1} ? {} : {permit_mynetworks, reject}}", "permit_mynetworks, reject"),
        ("$circle", ""),
    ],
)
def test_parameters_are_expanded_as_postfix_does(text: str, value: str) -> None:
    main = {"a": "A", "level": "3.6", "circle": "${circle}", "x": text}
    assert Parameters(Source(main, []))["x"] == value
