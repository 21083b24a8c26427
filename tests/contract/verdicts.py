"""What every LiveState promises about cached verdicts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chapps_tw.interfaces.state import LiveState
from tests.support.odd_names import ODD_NAMES

if TYPE_CHECKING:
    from twisted.trial.unittest import TestCase as Base
else:
    Base = object


class VerdictContract(Base):
    """Cached verdicts, and what happens once."""

    state: LiveState

    def advance(self, seconds: float) -> None:
        """Let the state's time go on."""
        raise NotImplementedError

    async def allowed(self, *names: str, space: str = "sda", owner: str = "bob") -> list[bool | None]:
        return [verdict.allowed for verdict in await self.state.verdicts(space, owner, names)]

    async def keep(self, *names: str, ttl: float = 100.0, owner: str = "bob", allowed: bool = True) -> None:
        tokens = [verdict.token for verdict in await self.state.verdicts("sda", owner, names)]
        kept = [(name, allowed, token) for name, token in zip(names, tokens, strict=True)]
        await self.state.keep_verdicts("sda", owner, kept, ttl)

    async def test_verdicts_are_kept_for_their_time(self) -> None:
        self.assertEqual(await self.allowed("a", "b"), [None, None])
        await self.keep("a", ttl=10.5)
        await self.keep("b", ttl=10.5, allowed=False)
        self.assertEqual(await self.allowed("b", "a", "c", "b"), [False, True, None, False])
        self.advance(10)
        self.assertEqual(await self.allowed("a", "b"), [True, False])
        self.advance(1)
        self.assertEqual(await self.allowed("a", "b"), [None, None])
        await self.keep("a")
        self.assertEqual(await self.allowed("a"), [True])

    async def test_what_was_kept_while_the_clock_was_ahead_is_not_known_when_it_is_set_back(self) -> None:
        await self.keep("before", ttl=3e6)
        self.advance(1e6)
        await self.keep("a")
        await self.keep("b", allowed=False)
        self.assertEqual(await self.allowed("a", "b"), [True, False])
        self.advance(-1e6)
        self.assertEqual(await self.allowed("before", "a", "b"), [True, None, None])
        self.assertEqual(await self.allowed("a", "b"), [None, None])
        await self.keep("a")
        self.assertEqual(await self.allowed("a", "b"), [True, None])
        self.advance(101)
        self.assertEqual(await self.allowed("a"), [None])

    async def test_what_happened_while_the_clock_was_ahead_has_not_happened_when_it_is_set_back(self) -> None:
        self.advance(1e6)
        self.assertTrue(await self.state.first_time("header", "a", 100.0))
        self.advance(-1e6)
        self.assertTrue(await self.state.first_time("header", "a", 100.0))
        self.assertFalse(await self.state.first_time("header", "a", 100.0))

    async def test_verdicts_of_other_owners_and_spaces_are_others(self) -> None:
        await self.keep("a")
        self.assertEqual(await self.allowed("a", owner="alice"), [None])
        self.assertEqual(await self.allowed("a", space="spf"), [None])

    async def test_no_names_no_verdicts(self) -> None:
        self.assertEqual(await self.allowed(), [])
        self.assertEqual(await self.state.drop_verdicts("sda", "bob", []), [])
        await self.state.keep_verdicts("sda", "bob", [], 10.0)

    async def test_a_drop_tells_what_each_was(self) -> None:
        await self.keep("a")
        await self.keep("b", allowed=False)
        self.assertEqual(await self.state.drop_verdicts("sda", "bob", ["b", "c", "a"]), [False, None, True])
        self.assertEqual(await self.allowed("a", "b", "c"), [None, None, None])
        self.assertEqual(await self.state.drop_verdicts("sda", "bob", ["a"]), [None])

    async def test_what_was_dropped_in_between_is_not_brought_back(self) -> None:
        await self.keep("old")
        old, new, other = await self.state.verdicts("sda", "bob", ["old", "new", "other"])
        await self.state.drop_verdicts("sda", "bob", ["old", "new"])
        kept = [("old", True, old.token), ("new", True, new.token), ("other", True, other.token)]
        await self.state.keep_verdicts("sda", "bob", kept, 100.0)
        self.assertEqual(await self.allowed("old", "new", "other"), [None, None, True])
        await self.keep("old", "new")
        self.assertEqual(await self.allowed("old", "new"), [True, True])

    async def test_verdicts_about_odd_names_are_told_apart(self) -> None:
        for number, name in enumerate(ODD_NAMES):
            await self.keep(name, owner=name, allowed=number % 2 == 0)
        for number, name in enumerate(ODD_NAMES):
            others = [other for other in ODD_NAMES if other != name]
            self.assertEqual(await self.allowed(name, *others, owner=name), [number % 2 == 0] + [None] * len(others))

    async def test_owner_and_name_are_not_run_together(self) -> None:
        await self.keep("c", owner="ab")
        self.assertEqual(await self.allowed("bc", owner="a"), [None])
        self.assertEqual(await self.allowed("abc", owner=""), [None])

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

    async def test_the_store_answers(self) -> None:
        await self.state.ping()
        await self.keep("a")
        await self.state.ping()
        self.assertEqual(await self.allowed("a"), [True])
