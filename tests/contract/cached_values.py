"""What every LiveState promises about cached values of the book, and about what happens once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chapps_tw.interfaces.state import Fresh, LiveState, ValueKey
from tests.support.odd_names import ODD_NAMES

if TYPE_CHECKING:
    from twisted.trial.unittest import TestCase as Base
else:
    Base = object


def key(name: str, owner: str = "bob", space: str = "sda") -> ValueKey:
    return ValueKey(space, owner, name)


class CachedValuesContract(Base):
    """Cached values, and what happens once."""

    state: LiveState

    def advance(self, seconds: float) -> None:
        """Let the state's time go on."""
        raise NotImplementedError

    async def restart(self) -> None:
        """Replace ``state`` by a new one on the same store, as after a restart of the service."""
        raise NotImplementedError

    async def values(self, *names: str, owner: str = "bob", space: str = "sda") -> list[str | None]:
        return [each.value for each in await self.state.values([key(name, owner, space) for name in names])]

    async def keep(self, *names: str, value: str = "1", ttl: float = 100.0, owner: str = "bob") -> None:
        keys = [key(name, owner) for name in names]
        found = await self.state.values(keys)
        await self.state.keep_values(
            [Fresh(each, value, has.token) for each, has in zip(keys, found, strict=True)], ttl
        )

    async def test_values_are_kept_for_their_time(self) -> None:
        self.assertEqual(await self.values("a", "b"), [None, None])
        await self.keep("a", ttl=10.5)
        await self.keep("b", ttl=10.5, value="0")
        self.assertEqual(await self.values("b", "a", "c", "b"), ["0", "1", None, "0"])
        self.advance(10)
        self.assertEqual(await self.values("a", "b"), ["1", "0"])
        self.advance(1)
        self.assertEqual(await self.values("a", "b"), [None, None])
        await self.keep("a")
        self.assertEqual(await self.values("a"), ["1"])

    async def test_a_value_is_any_text(self) -> None:
        texts = ("", " ", "0 ", "1 1000", "-", "?1 1000", "null", '["é", 7, null]', "1\r\n$3\0", "x" * 100_000)
        for number, text in enumerate(texts):
            await self.keep(str(number), value=text)
        self.assertEqual(await self.values(*map(str, range(len(texts)))), list(texts))
        dropped = await self.state.drop_values([key(str(number)) for number in range(len(texts))])
        self.assertEqual(dropped, list(texts))

    async def test_what_was_kept_while_the_clock_was_ahead_is_not_known_when_it_is_set_back(self) -> None:
        await self.keep("before", ttl=3e6)
        self.advance(1e6)
        await self.keep("a")
        await self.keep("b", value="0")
        self.assertEqual(await self.values("a", "b"), ["1", "0"])
        self.advance(-1e6)
        self.assertEqual(await self.values("before", "a", "b"), ["1", None, None])
        self.assertEqual(await self.values("a", "b"), [None, None])
        await self.keep("a")
        self.assertEqual(await self.values("a", "b"), ["1", None])
        self.advance(101)
        self.assertEqual(await self.values("a"), [None])

    async def test_what_happened_while_the_clock_was_ahead_has_not_happened_when_it_is_set_back(self) -> None:
        self.advance(1e6)
        self.assertTrue(await self.state.first_time("header", "a", 100.0))
        self.advance(-1e6)
        self.assertTrue(await self.state.first_time("header", "a", 100.0))
        self.assertFalse(await self.state.first_time("header", "a", 100.0))

    async def test_values_of_other_owners_and_spaces_are_others(self) -> None:
        await self.keep("a")
        self.assertEqual(await self.values("a", owner="alice"), [None])
        self.assertEqual(await self.values("a", space="spf"), [None])

    async def test_one_call_reads_keeps_and_drops_values_of_several_spaces_and_owners(self) -> None:
        keys = [
            ValueKey(space, owner, name)
            for space in ("user", "domain", "sda")
            for owner in ("bob", "alice", "")
            for name in ("", "a")
        ]
        found = await self.state.values(keys)
        self.assertEqual({each.value for each in found}, {None})
        fresh = [
            Fresh(each, str(number), has.token) for number, (each, has) in enumerate(zip(keys, found, strict=True))
        ]
        await self.state.keep_values(fresh, 100.0)
        self.assertEqual([each.value for each in await self.state.values(keys)], [each.value for each in fresh])
        asked = [keys[5], ValueKey("user", "nobody"), keys[0], keys[5]]
        self.assertEqual([each.value for each in await self.state.values(asked)], ["5", None, "0", "5"])
        self.assertEqual(await self.state.drop_values([keys[7], ValueKey("user", "nobody"), keys[2]]), ["7", None, "2"])
        left = [each.value for each in await self.state.values(keys)]
        self.assertEqual(left, [None if number in (2, 7) else str(number) for number in range(len(keys))])

    async def test_a_thousand_values_in_one_call(self) -> None:
        keys = [ValueKey("sda", f"user{number % 10}", str(number)) for number in range(1000)]
        found = await self.state.values(keys)
        fresh = [Fresh(each, each.name, has.token) for each, has in zip(keys, found, strict=True)]
        await self.state.keep_values(fresh, 100.0)
        names = [each.name for each in keys]
        self.assertEqual([each.value for each in await self.state.values(keys)], names)
        self.assertEqual(await self.state.drop_values(keys), names)
        self.assertEqual({each.value for each in await self.state.values(keys)}, {None})

    async def test_no_keys_no_values(self) -> None:
        self.assertEqual(await self.values(), [])
        self.assertEqual(await self.state.drop_values([]), [])
        await self.state.keep_values([], 10.0)

    async def test_a_drop_tells_what_each_was(self) -> None:
        await self.keep("a")
        await self.keep("b", value="0")
        self.assertEqual(await self.state.drop_values([key("b"), key("c"), key("a")]), ["0", None, "1"])
        self.assertEqual(await self.values("a", "b", "c"), [None, None, None])
        self.assertEqual(await self.state.drop_values([key("a")]), [None])

    async def test_what_was_dropped_in_between_is_not_brought_back(self) -> None:
        await self.keep("old")
        keys = [key("old"), key("new"), key("other")]
        found = await self.state.values(keys)
        await self.state.drop_values(keys[:2])
        fresh = [Fresh(each, "1", has.token) for each, has in zip(keys, found, strict=True)]
        await self.state.keep_values(fresh, 100.0)
        self.assertEqual(await self.values("old", "new", "other"), [None, None, "1"])
        await self.keep("old", "new")
        self.assertEqual(await self.values("old", "new"), ["1", "1"])

    async def test_a_drop_that_came_before_a_restart_is_known_after_it(self) -> None:
        [found] = await self.state.values([key("a")])
        await self.state.drop_values([key("a")])
        await self.restart()
        await self.state.keep_values([Fresh(key("a"), "1", found.token)], 100.0)
        self.assertEqual(await self.values("a"), [None])

    async def test_a_value_of_before_a_drop_is_not_brought_back_by_the_next_drop(self) -> None:
        tokens = []
        for _ in range(5):
            [found] = await self.state.values([key("a")])
            tokens.append(found.token)
            await self.state.drop_values([key("a")])
        self.assertEqual(len(set(tokens)), 5)
        for token in tokens:
            await self.state.keep_values([Fresh(key("a"), "1", token)], 100.0)
            self.assertEqual(await self.values("a"), [None])

    async def test_a_token_that_was_never_given_is_worth_nothing(self) -> None:
        await self.state.drop_values([key("a")])
        for token in ("", "x", "-1", "1e9", "\u0663", "9" * 40):
            await self.state.keep_values([Fresh(key("a"), "1", token)], 100.0)
            self.assertEqual(await self.values("a"), [None], token)

    async def test_values_about_odd_names_are_told_apart(self) -> None:
        for number, name in enumerate(ODD_NAMES):
            await self.keep(name, owner=name, value=str(number))
        for number, name in enumerate(ODD_NAMES):
            others = [other for other in ODD_NAMES if other != name]
            self.assertEqual(await self.values(name, *others, owner=name), [str(number)] + [None] * len(others))

    async def test_owner_and_name_are_not_run_together(self) -> None:
        await self.keep("c", owner="ab")
        self.assertEqual(await self.values("bc", owner="a"), [None])
        self.assertEqual(await self.values("abc", owner=""), [None])
        self.assertEqual(await self.values("", owner="abc"), [None])

    async def test_what_is_assumed_holds_until_it_is_dropped(self) -> None:
        await self.keep("a", value="7")
        await self.values("a")
        assumed = self.state.assume(key("a"))
        # A store whose values take no round trip assumes nothing.
        assumptions = [assumed] if assumed else []
        self.assertTrue(all((each.key, each.value) == (key("a"), "7") for each in assumptions))
        self.assertTrue(await self.state.confirm(assumptions))
        self.assertIsNone(self.state.assume(key("b")))
        await self.state.drop_values([key("a")])
        self.assertEqual(await self.state.confirm(assumptions), not assumptions)
        self.assertIsNone(self.state.assume(key("a")))

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

    async def test_the_store_answers(self) -> None:
        await self.state.ping()
        await self.keep("a")
        await self.state.ping()
        self.assertEqual(await self.values("a"), ["1"])
