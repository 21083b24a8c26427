"""Reading the configuration again: one after the other, shared by all who wait."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from chapps_tw.application.reloading import Reloading
from chapps_tw.application.start_errors import StartError
from chapps_tw.config.settings import API, ConfigError, OutboundQuotaPolicy, Settings
from chapps_tw.interfaces.configuration import Change

FIRST = Settings()
SECOND = replace(FIRST, oqp=OutboundQuotaPolicy(warn_at=50), api=API(listen="tcp:1:interface=127.0.0.1"))


class Application:
    """Keeps the settings that are put in force, unless it has a problem."""

    def __init__(self) -> None:
        self.settings = FIRST
        self.problem = ""
        self.used: list[Settings] = []

    async def use(self, settings: Settings) -> None:
        if self.problem:
            raise StartError(self.problem)
        self.settings = settings
        self.used.append(settings)


class ReloadingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.application = Application()
        self.file: Settings | ConfigError = SECOND
        self.told: list[str] = []
        self.reads = 0
        # While it is held, a read waits in the thread.
        self.held: Deferred[None] = succeed(None)
        self.reloading = Reloading(self.application, self.read, self.told.append, self.in_thread)

    def read(self) -> Settings:
        self.reads += 1
        if isinstance(self.file, ConfigError):
            raise self.file
        return self.file

    async def in_thread(self, work: Callable[..., Any], *values: Any) -> Any:
        found = work(*values)
        # Waits for the one that is held now.
        waiting: Deferred[None] = Deferred()
        self.held.addCallback(lambda _: waiting.callback(None))
        await waiting
        return found

    def test_it_names_what_has_changed_and_what_takes_effect_after_a_restart(self) -> None:
        before = self.reloading.loaded()
        change = self.successResultOf(self.reloading.reload())
        self.assertEqual(change.changed, ["[OutboundQuotaPolicy] warn_at"])
        self.assertEqual(change.restart, ["[API] listen"])
        self.assertEqual(self.application.settings.oqp.warn_at, 50)
        self.assertEqual(self.application.settings.api, FIRST.api)
        self.assertEqual(self.reloading.loaded(), change.loaded)
        self.assertNotEqual(change.loaded.digest, before.digest)

    def test_what_takes_effect_after_a_restart_is_named_each_time(self) -> None:
        self.successResultOf(self.reloading.reload())
        change = self.successResultOf(self.reloading.reload())
        self.assertEqual((change.changed, change.restart), ([], ["[API] listen"]))

    def test_all_who_ask_while_it_is_read_share_the_next_reading(self) -> None:
        self.held = Deferred()
        asked = [self.reloading.reload()]
        self.file = replace(SECOND, oqp=OutboundQuotaPolicy(warn_at=40))
        asked += [self.reloading.reload() for _ in range(3)]
        for _ in range(5):
            self.reloading.request()
        self.assertEqual(self.reads, 1)
        self.held.callback(None)
        changes: list[Change] = [self.successResultOf(each) for each in asked]
        self.assertEqual(self.reads, 2)
        self.assertEqual([used.oqp.warn_at for used in self.application.used], [50, 40])
        self.assertIs(changes[1], changes[3])

    def test_an_error_changes_nothing_and_the_next_reading_succeeds(self) -> None:
        self.file = ConfigError(["chapps.ini: [API] auth = 'x': must be token or none", "another"])
        before = self.reloading.loaded()
        self.failureResultOf(self.reloading.reload(), ConfigError)
        self.assertEqual((self.application.used, self.reloading.loaded()), ([], before))
        self.file = SECOND
        self.successResultOf(self.reloading.reload())

    def test_a_part_that_cannot_use_it_is_an_error_of_the_configuration(self) -> None:
        self.application.problem = "[Log] file: /x cannot be opened"
        error = self.failureResultOf(self.reloading.reload(), ConfigError).value
        self.assertEqual(error.problems, ["[Log] file: /x cannot be opened"])

    def test_what_conflicts_with_options_that_take_effect_after_a_restart_is_an_error(self) -> None:
        self.application.settings = replace(FIRST, api=API(listen="tcp:8080"))
        self.file = replace(FIRST, api=API(listen="tcp:8080:interface=127.0.0.1", auth="none"))
        error = self.failureResultOf(self.reloading.reload(), ConfigError).value
        self.assertIn("[API] auth = 'none': must be token unless listen is", error.problems[0])
        self.assertIn("or restart the service", error.problems[0])

    def test_the_service_manager_is_told_when_it_begins_and_when_it_ends(self) -> None:
        self.successResultOf(self.reloading.reload())
        self.file = ConfigError(["wrong"])
        self.failureResultOf(self.reloading.reload(), ConfigError)
        begin = r"^RELOADING=1\nMONOTONIC_USEC=[0-9]+$"
        for told, wanted in zip(self.told, [begin, "^READY=1$", begin, "^READY=1$"], strict=True):
            self.assertRegex(told, wanted)

    def test_nothing_is_put_in_force_during_a_stop(self) -> None:
        self.held = Deferred()
        asked = self.reloading.reload()
        self.reloading.stop()
        self.held.callback(None)
        self.failureResultOf(asked, ConfigError)
        self.assertEqual(self.application.used, [])
