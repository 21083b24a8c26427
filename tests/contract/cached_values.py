"""What every LiveState promises about cached values of the book."""

from __future__ import annotations

from chapps_tw.interfaces.greylist import GreylistAttempt, GreylistRules
from chapps_tw.interfaces.outcome import Outcome
from chapps_tw.interfaces.state import Fresh, Spent, ValueKey
from tests.contract.state_case import StateCase
from tests.support.charges import charge, whole
from tests.support.odd_names import ODD_NAMES

ATTEMPT = GreylistAttempt("192.0.2.0/24", "a@b.example", "c@d.example", "d.example", "i", True)
RULES = GreylistRules(60.0, 600.0, 600.0, 600.0, 3)


def key(name: str, owner: str = "bob", space: str = "sda") -> ValueKey:
    return ValueKey(space, owner, name)


class CachedValuesContract(StateCase):
    """Cached values of the book."""

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

    async def test_what_another_process_drops_or_keeps_is_seen(self) -> None:
        other = self.another()
        await self.keep("a")
        self.assertEqual([each.value for each in await other.values([key("a")])], ["1"])
        self.assertEqual(await other.drop_values([key("a")]), ["1"])
        await self.turn()
        [found] = await self.state.values([key("a")])
        self.assertIsNone(found.value)
        await other.keep_values([Fresh(key("a"), "2", found.token)], 100.0)
        self.assertEqual(await self.values("a"), ["2"])

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

    async def test_a_version_holds_until_a_value_is_dropped(self) -> None:
        await self.keep("a", value="7")
        await self.values("a")
        version = self.state.version()
        self.assertEqual((self.state.recall(key("a")), self.state.recall(key("b"))), ("7", None))
        self.assertTrue(await self.state.confirm(version))
        self.assertEqual((await self.state.spend(whole("i"), [charge()], version)).outcome, Outcome.ACCEPTED)
        await self.state.drop_values([key("b")])
        self.assertFalse(await self.state.confirm(version))
        self.assertEqual(await self.state.spend(whole("i"), [charge()], version), Spent(Outcome.OUTDATED, -1, (), 0.0))
        self.assertEqual((await self.state.check_greylist(ATTEMPT, RULES, version=version)).outcome, Outcome.OUTDATED)
        self.assertIsNot(self.state.version(), version)
        self.assertEqual((await self.state.spend(whole("i2"), [charge()])).outcome, Outcome.ACCEPTED)

    async def test_what_another_process_has_dropped_cannot_be_relied_on(self) -> None:
        await self.keep("a")
        await self.values("a")
        version, other = self.state.version(), self.another()
        await other.drop_values([key("a")])
        await self.turn()
        self.assertEqual((await self.state.spend(whole("i"), [charge()], version)).outcome, Outcome.OUTDATED)
        self.assertIsNone(self.state.recall(key("a")))

    async def test_the_store_answers(self) -> None:
        await self.state.ping()
        await self.keep("a")
        await self.state.ping()
        self.assertEqual(await self.values("a"), ["1"])
