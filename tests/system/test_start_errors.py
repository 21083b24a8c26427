"""A start that fails names the option as the admin wrote it, and what would help. No traceback, ever."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Barrier, Thread

import pytest
from twisted.internet import reactor
from twisted.internet.defer import maybeDeferred
from twisted.internet.protocol import Factory
from twisted.trial.unittest import TestCase

from chapps_tw.application.endpoints import listen
from chapps_tw.application.preflight import findings
from chapps_tw.application.start_errors import StartError
from chapps_tw.config.checks import places
from chapps_tw.config.load import load
from chapps_tw.config.settings import ConfigError, Settings
from chapps_tw.service import Chapps
from chapps_tw.sockets.unix_socket import room_for
from tests.support.book_case import shared
from tests.support.other_user import NOBODY, OTHER, acting_as, directory_of, needs_root
from tests.support.servers.common import free_port, wait_until
from tests.support.servers.service import Service
from tests.support.servers.sql import MariaDB, PostgreSQL, running


class ConfiguredTestCase(TestCase):
    """Has a configuration file in a directory of its own."""

    def setUp(self) -> None:
        directory = TemporaryDirectory(prefix="chapps-")
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)
        self.config = self.directory / "chapps.ini"

    def settings(self, text: str) -> Settings:
        log = "" if "[Log]" in text else "[Log]\nfile =\n"
        self.config.write_text(f"[CHAPPS]\ndata_dir = {self.directory}\n{log}{text}\n")
        return load(str(self.config), {})


class ListenerTests(ConfiguredTestCase):
    def refusal(self, text: str, listener: str = "outbound") -> str:
        """Why a listener of a configuration (``""`` is the HTTP API) cannot be opened."""
        settings = self.settings(text)
        where = {each.what: each for each in places(settings)}[f"listener {listener}" if listener else "the HTTP API"]
        error = self.assertRaises(StartError, listen, settings, where, reactor, Factory())
        told = str(error)
        self.assertTrue(told.startswith(f"{self.config}: "), told)
        return told.removeprefix(f"{self.config}: ")

    def taken(self) -> int:
        server = socket.create_server(("127.0.0.1", free_port()))
        self.addCleanup(server.close)
        return int(server.getsockname()[1])

    def test_a_port_that_is_taken_is_named_by_the_option_that_was_written(self) -> None:
        port = self.taken()
        remedy = f"port {port} is taken by another program (ss -ltnxp shows it); end that, or choose another"
        endpoint = f"tcp:{port}:interface=127.0.0.1"
        for text, listener, option in (
            (f"[OutboundQuotaPolicy]\nlisten_port = {port}", "outbound", f"[OutboundQuotaPolicy] listen_port = {port}"),
            (f"[GreylistingPolicy]\nlisten = {endpoint}", "greylisting", f"[GreylistingPolicy] listen = {endpoint!r}"),
            (
                f"[SPFEnforcementPolicy]\nlisten_port = {port}",
                "inbound",
                f"[SPFEnforcementPolicy] listen_port = {port}",
            ),
            (
                f"[SenderDomainAuthPolicy]\nlisten_port = {port}",
                "sender-auth",
                f"[SenderDomainAuthPolicy] listen_port = {port}",
            ),
            (f"[Listener own]\nlisten = {endpoint}", "own", f"[Listener own] listen = {endpoint!r}"),
            (f"[API]\nlisten = {endpoint}", "", f"[API] listen = {endpoint!r}"),
        ):
            with self.subTest(option):
                self.assertEqual(self.refusal(text, listener), f"{option}: {remedy}")

    def test_an_address_of_another_machine_is_named(self) -> None:
        told = self.refusal("[OutboundQuotaPolicy]\nlisten_address = 192.0.2.1")
        self.assertIn("[OutboundQuotaPolicy] listen_port = 10225: this machine has no address 192.0.2.1; ", told)

    def test_a_socket_that_systemd_did_not_hand_over_is_told_with_its_unit(self) -> None:
        for endpoint, which in (
            ("systemd:domain=INET:name=outbound", "name outbound"),
            ("systemd:domain=INET:index=7", "index 7"),
        ):
            told = self.refusal(f"[OutboundQuotaPolicy]\nlisten = {endpoint}")
            self.assertIn(
                f"[OutboundQuotaPolicy] listen = {endpoint!r}: systemd handed over no socket of {which}; ", told
            )
            self.assertIn("systemctl enable --now chapps.socket", told)

    def test_what_is_no_endpoint_is_told(self) -> None:
        # Whatever one of Twisted's parsers, or a plugin's, raises for it.
        for endpoint in (
            "10300", "tcp:smtp", "tcp", "tcp:10300:nonsense=1", "nonsense:1", "unix", "tcp:10300:backlog=many",
            "systemd:domain=INET", "systemd:domain=NONSENSE:index=0", "ssl:443:sslmethod=NONSENSE",
        ):  # fmt: skip
            with self.subTest(endpoint):
                self.assertIn(f"[API] listen = {endpoint!r}: ", self.refusal(f"[API]\nlisten = {endpoint}", ""))

    def test_files_of_an_endpoint_are_named(self) -> None:
        gone = self.directory / "no" / "file"
        told = self.refusal(f"[API]\nlisten = unix:{gone}", "")
        self.assertIn(
            f"the socket cannot be made: No such file or directory: there is no directory {gone.parent}", told
        )
        told = self.refusal(f"[API]\nlisten = ssl:{free_port()}:privateKey={gone}", "")
        self.assertIn(f"{gone} cannot be opened: No such file or directory", told)
        junk = self.directory / "junk.pem"
        junk.write_text("-----BEGIN NOTHING-----\n")
        told = self.refusal(f"[API]\nlisten = ssl:{free_port()}:privateKey={junk}", "")
        self.assertIn("the certificate or its key cannot be used", told)

    def test_a_unix_socket_in_use_is_told(self) -> None:
        path = self.directory / "socket"
        server = socket.socket(socket.AF_UNIX)
        self.addCleanup(server.close)
        server.bind(str(path))
        server.listen()
        self.assertIn(f"socket {path} is taken by another program", self.refusal(f"[API]\nlisten = unix:{path}", ""))
        own = self.settings(f"[Listener own]\nlisten = unix:{path}2\n[API]\nlisten =")
        self.addCleanup(listen(own, places(own)[0], reactor, Factory()).stopListening)
        told = self.refusal(f"[API]\nlisten = unix:{path}2", "")
        self.assertIn(f"socket {path}2 is taken by another program", told)

    async def test_a_unix_socket_that_a_killed_process_left_behind_is_made_anew_whoever_has_its_process_id(
        self,
    ) -> None:
        for number, pid in enumerate((1, os.getpid())):
            path = self.directory / f"socket{number}"
            with socket.socket(socket.AF_UNIX) as killed:
                killed.bind(str(path))
                killed.listen()
            path.with_name(f"{path.name}.lock").symlink_to(str(pid))
            for endpoint in (f"unix:{path}", f"unix:{path}:lockfile=1", f"haproxy:unix:{path}"):
                settings = self.settings(f"[Listener own]\nlisten = {endpoint}\n[API]\nlisten =")
                port = listen(settings, places(settings)[0], reactor, Factory())
                with socket.socket(socket.AF_UNIX) as client:
                    client.connect(str(path))
                # As a kill does, leave the socket there.
                kept = path.with_name("kept")
                kept.hardlink_to(path)
                await maybeDeferred(port.stopListening)
                kept.rename(path)

    def test_what_is_in_the_place_of_a_socket_stays(self) -> None:
        path = self.directory / "file"
        path.write_text("mine")
        told = self.refusal(f"[API]\nlisten = unix:{path}", "")
        self.assertEqual(
            told, f"[API] listen = 'unix:{path}': {path} is there and no socket; remove it, or choose another"
        )
        self.assertEqual(path.read_text(), "mine")

    def test_a_unix_socket_whose_queue_is_full_is_in_use(self) -> None:
        path = self.directory / "socket"
        with contextlib.ExitStack() as stack:
            server, *clients = (stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(3))
            server.bind(str(path))
            server.listen(0)
            for client in clients:
                client.setblocking(False)
                client.connect_ex(str(path))
            told = self.refusal(f"[API]\nlisten = unix:{path}", "")
        self.assertIn(f"socket {path} is taken by another program", told)

    def test_a_path_that_is_too_long_for_a_socket_is_told(self) -> None:
        path = self.directory / ("x" * 110)
        self.assertIn(
            "the socket cannot be made: AF_UNIX path too long", self.refusal(f"[API]\nlisten = unix:{path}", "")
        )

    def test_the_default_endpoints_open(self) -> None:
        ports = "".join(
            f"[{section}]\nlisten_port = {free_port()}\n"
            for section in ("OutboundQuotaPolicy", "GreylistingPolicy", "SPFEnforcementPolicy")
        )
        settings = self.settings(f"{ports}[API]\nlisten =\n")
        for where in places(settings):
            self.addCleanup(listen(settings, where, reactor, Factory()).stopListening)


def test_of_those_that_want_a_socket_at_once_one_gets_it(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    together = Barrier(4)
    listening: list[socket.socket] = []

    def start() -> None:
        server = socket.socket(socket.AF_UNIX)
        together.wait()
        with room_for(path), contextlib.suppress(OSError):
            server.bind(path)
            # What the others find between the two looks like a socket that was left behind.
            time.sleep(0.05)
            server.listen()
            listening.append(server)

    threads = [Thread(target=start) for _ in range(together.parties)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(listening) == 1
    listening[0].close()


class FileTests(ConfiguredTestCase):
    """The whole service, up to the first thing that it cannot open."""

    def refusal(self, text: str) -> str:
        service = Chapps(self.settings(text), reactor, {})
        ended = self.assertRaises(SystemExit, service.startService)
        told = str(ended.code)
        self.assertTrue(told.startswith("chapps cannot start: "), told)
        return told.removeprefix("chapps cannot start: ")

    def test_each_file_is_named_with_its_option(self) -> None:
        (self.directory / "file").write_text("")
        for option, value, why in (
            ("[Log] file", "no/log", "No such file or directory: there is no directory {}/no"),
            ("[Log] file", "", "Is a directory"),
            ("[PolicyConfigAdapter] db_name", "file/db", "Not a directory"),
            ("[PolicyConfigAdapter] db_name", "", "Is a directory"),
            ("[State] path", "file/state", "Not a directory"),
            ("[API] token_file", "no/token", "No such file or directory"),
            ("[API] token_file", "", "Is a directory"),
        ):
            with self.subTest(option, value=value):
                section, name = option.split()
                path = str(self.directory / value) if value else str(self.directory)
                told = self.refusal(f"{section}\n{name} = {path}")
                self.assertTrue(told.startswith(f"{self.config}: {option}: "), told)
                self.assertIn(f"{self.directory}", told.removeprefix(str(self.config)))
                self.assertIn(why.format(self.directory), told)
                self.assertNotIn("Errno", told)

    def test_a_data_dir_that_is_a_file_is_told(self) -> None:
        (self.directory / "file").write_text("")
        self.config.write_text(f"[CHAPPS]\ndata_dir = {self.directory}/file\n")
        service = Chapps(load(str(self.config), {}), reactor, {})
        ended = self.assertRaises(SystemExit, service.startService)
        self.assertIn(f"{self.config}: [CHAPPS] data_dir: {self.directory}/file cannot be opened: ", str(ended.code))

    def test_what_a_database_driver_does_not_know_is_told(self) -> None:
        for url in ("mariadb://u:hunter2@127.0.0.1/x?nonsense=1", f"mariadb://u:hunter2@{'a' * 70}/x"):
            told = self.refusal(f"[PolicyConfigAdapter]\ndb_url = {url}")
            self.assertIn(f"{self.config}: [PolicyConfigAdapter] db_url: the database cannot be used: ", told)
            self.assertNotIn("hunter2", told)


@needs_root
@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("chapps.sqlite3", "[PolicyConfigAdapter] db_name"),
        ("decisions.log", "[Log] file"),
    ],
)
def test_a_file_of_roots_is_told_with_its_owner_and_the_remedy(name: str, option: str) -> None:
    with directory_of(NOBODY) as place:
        config = place / "chapps.ini"
        config.write_text(f"[CHAPPS]\ndata_dir = {place}\n[Log]\nfile = {place}/decisions.log\n")
        config.chmod(0o644)
        (place / name).touch(0o600)
        with acting_as(NOBODY), pytest.raises(SystemExit) as ended:
            Chapps(load(str(config), {}), reactor, {}).startService()
    told = str(ended.value)
    assert told.startswith(f"chapps cannot start: {config}: {option}: ")
    assert "belongs to root, and this runs as nobody; " in told
    assert f"chown nobody {place / name}" in told


@needs_root
def test_a_socket_in_a_directory_of_others_is_told_before_the_start_and_at_it() -> None:
    with directory_of(OTHER) as place:
        config = place / "chapps.ini"
        config.write_text(f"[Listener own]\nlisten = unix:{place}/socket\n[API]\nlisten =\n")
        place.chmod(0o755)
        with acting_as(NOBODY):
            settings = load(str(config), {})
            with pytest.raises(StartError) as refused:
                listen(settings, places(settings)[0], reactor, Factory())
            with pytest.raises(ConfigError) as told:
                load(str(config), {}, findings)
    listener, remedy = f"[Listener own] listen = 'unix:{place}/socket': ", "run this as 65533 (sudo -u 65533)"
    refusal = f"{config}: {listener}socket {place}/socket cannot be made: Permission denied: {place} "
    assert str(refused.value).startswith(refusal)
    [found] = [each for each in told.value.problems if "[Listener own]" in each]
    assert found.startswith(f"{config}: line 2: {listener}cannot be used: Permission denied: it belongs to 65533, ")
    assert str(refused.value).endswith(remedy) and found.endswith(remedy)


# --- the process ---


@pytest.fixture
def service() -> Iterator[Service]:
    service = Service()
    yield service
    service.remove()


def test_the_process_ends_with_one_sentence(service: Service) -> None:
    with socket.create_server(("127.0.0.1", service.ports["outbound"])):
        service.launch()
        wait_until(lambda: service.has_ended, "the end")
    sentence = f"chapps cannot start: {service.config}: [OutboundQuotaPolicy] listen_port = {service.ports['outbound']}"
    assert sentence in service.log()
    assert "Traceback" not in service.log()
    assert service.stop() == 1


def test_without_a_passcode_the_answer_says_how_to_set_one(service: Service) -> None:
    status, reply = service.start().http("/live/config/write/", "POST", "guess")
    assert status == 401
    assert "No passcode is set" in reply["detail"]
    assert "chapps-cli admin passcode" in reply["detail"]


# --- a database server that refuses us ---


@pytest.fixture(params=[PostgreSQL, MariaDB])
def server(request: pytest.FixtureRequest) -> PostgreSQL | MariaDB:
    return shared(request.param)


def errors(service: Service) -> list[str]:
    """What the start logged as an error."""
    api = f":{service.ports['api']}:"
    return [line for line in service.log(api).splitlines() if "application.database.Database#error]" in line]


def with_database(service: Service, server: PostgreSQL | MariaDB) -> dict[str, object]:
    """Give the service a database with its tables; returns the options that say which."""
    adapter = server.adapter(server.new_database())
    written = {
        "adapter": adapter.adapter, "db_host": adapter.db_host, "db_port": adapter.db_port,
        "db_name": adapter.db_name, "db_pass": "secret",
    }  # fmt: skip
    service.write_config({"PolicyConfigAdapter": written})
    service.set_up_database()
    return written


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"db_pass": "hunter2"}, "db_user, db_pass"),
        ({"db_user": "nobody2"}, "db_user, db_pass"),
        ({"db_name": "nonesuch"}, "db_name"),
    ],
)
def test_a_login_that_is_refused_is_an_error_that_names_the_options(
    server: PostgreSQL | MariaDB, service: Service, options: dict[str, str], named: str
) -> None:
    written = with_database(service, server)
    service.write_config({"PolicyConfigAdapter": {**written, **options}})
    # It goes on: who is cached is answered, and all are once the server lets it in.
    service.start()
    [line] = errors(service)
    assert f"{service.config}: [PolicyConfigAdapter] {named}: the database cannot be used: " in line
    assert "hunter2" not in service.log()
    assert "Traceback" not in service.log()


def test_when_the_server_takes_the_password_after_all_the_service_works(
    server: PostgreSQL | MariaDB, service: Service
) -> None:
    with_database(service, server)
    set_password(server, "changed in the night")
    try:
        service.start()
        assert service.http("/ready")[0] == 503
    finally:
        set_password(server, "secret")
    service.wait_ready()


def test_a_login_that_is_refused_in_another_language_is_told_from_a_server_that_is_away(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LANGUAGE", "de")
    with running(PostgreSQL) as server:
        server.execute("ALTER SYSTEM SET lc_messages = 'C.UTF-8'")
        server.execute("SELECT pg_reload_conf()")
        written = with_database(service, server)
        service.write_config({"PolicyConfigAdapter": {**written, "db_pass": "hunter2"}})
        service.start()
    [line] = errors(service)
    # Where the server's translations are not installed, it is known by its words.
    assert re.search(r"\[PolicyConfigAdapter\] db_user, db_pass(, db_name)?: the database cannot be used: ", line)


def set_password(server: PostgreSQL | MariaDB, password: str) -> None:
    if server.kind == "postgresql":
        server.execute(f"ALTER ROLE chapps PASSWORD '{password}'")
        return
    for host in ("'%'", "localhost"):
        server.execute(f"SET PASSWORD FOR chapps@{host} = PASSWORD('{password}')")
