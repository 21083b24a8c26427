"""What every LiveState promises about events, and about what happens once."""

from __future__ import annotations

from tests.contract.state_case import StateCase
from tests.support.odd_names import ODD_NAMES


class EventContract(StateCase):
    """Events, and what happens once."""

    async def test_the_first_time_is_once_in_a_while(self) -> None:
        first = self.state.first_time
        self.assertTrue(await first("prepend", "i", 10.5))
        self.assertFalse(await first("prepend", "i", 10.5))
        self.assertTrue(await first("prepend", "j", 10.5))
        self.assertTrue(await first("other", "i", 10.5))
        self.advance(10)
        self.assertFalse(await first("prepend", "i", 10.5))
        self.advance(1)
        self.assertTrue(await first("prepend", "i", 10.5))

    async def test_the_first_time_tells_odd_names_apart(self) -> None:
        for wanted in (True, False):
            seen = [await self.state.first_time("prepend", name, 100.0) for name in ODD_NAMES]
            self.assertEqual(seen, [wanted] * len(ODD_NAMES))

    async def test_an_event_is_noted_once_in_a_while(self) -> None:
        note = self.state.note_event
        self.assertEqual(await self.state.events(10), [])
        self.assertTrue(await note("bob near", 10.5, "first"))
        self.assertFalse(await note("bob near", 10.5, "second"))
        self.assertTrue(await note("alice near", 10.5, "é\udce9\0"))
        self.advance(10)
        self.assertFalse(await note("bob near", 10.5, "third"))
        self.advance(1)
        self.assertTrue(await note("bob near", 10.5, "fourth"))
        self.assertEqual(await self.state.events(10), ["fourth", "é\udce9\0", "first"])
        self.assertEqual(await self.state.events(2), ["fourth", "é\udce9\0"])
        self.assertEqual(await self.state.events(0), [])

    async def test_an_event_is_no_first_time_of_the_same_name(self) -> None:
        self.assertTrue(await self.state.note_event("a", 100.0, "event"))
        self.assertTrue(await self.state.first_time("events", "a", 100.0))
        self.assertTrue(await self.state.first_time("event", "a", 100.0))

    async def test_what_two_processes_note_is_noted_once(self) -> None:
        other = self.another()
        noted = [await each.note_event("a", 100.0, str(n)) for n, each in enumerate((other, self.state, other))]
        self.assertEqual(noted, [True, False, False])
        self.assertTrue(await self.state.note_event("b", 100.0, "b"))
        for each in (self.state, other):
            self.assertEqual(await each.events(5), ["b", "0"])
        once = [await each.first_time("prepend", "i", 100.0) for each in (self.state, other)]
        self.assertEqual(once, [True, False])

    async def test_events_with_odd_names_are_told_apart(self) -> None:
        for wanted in (True, False):
            noted = [await self.state.note_event(name, 100.0, str(number)) for number, name in enumerate(ODD_NAMES)]
            self.assertEqual(noted, [wanted] * len(ODD_NAMES))
        self.assertEqual(len(await self.state.events(100)), len(ODD_NAMES))

    async def test_at_least_the_last_thousand_events_are_there_and_not_all(self) -> None:
        for number in range(2500):
            await self.state.note_event(str(number), 100.0, f"{number} " + "x" * 200)
        found = [int(each.partition(" ")[0]) for each in await self.state.events(10**6)]
        self.assertGreaterEqual(len(found), 1000)
        self.assertLess(len(found), 2500)
        self.assertEqual(found, list(range(2499, 2499 - len(found), -1)))

    async def test_events_are_there_after_a_restart(self) -> None:
        await self.state.note_event("a", 100.0, "event")
        await self.restart()
        self.assertFalse(await self.state.note_event("a", 100.0, "again"))
        self.assertEqual(await self.state.events(5), ["event"])

    async def test_an_event_of_a_clock_that_was_ahead_does_not_keep_the_next_back(self) -> None:
        self.advance(1e6)
        self.assertTrue(await self.state.note_event("a", 100.0, "ahead"))
        self.advance(-1e6)
        self.assertTrue(await self.state.note_event("a", 100.0, "now"))
        self.assertFalse(await self.state.note_event("a", 100.0, "again"))
        self.assertEqual(await self.state.events(5), ["now", "ahead"])

    async def test_what_happened_while_the_clock_was_ahead_has_not_happened_when_it_is_set_back(self) -> None:
        self.advance(1e6)
        self.assertTrue(await self.state.first_time("header", "a", 100.0))
        self.advance(-1e6)
        self.assertTrue(await self.state.first_time("header", "a", 100.0))
        self.assertFalse(await self.state.first_time("header", "a", 100.0))
