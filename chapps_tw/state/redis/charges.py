"""Counting in accounts: how charges and windows are encoded for the scripts, and what the scripts answer."""

from __future__ import annotations

from binascii import b2a_hex
from collections.abc import Callable, Sequence
from functools import lru_cache
from hashlib import blake2b
from struct import Struct
from typing import Any, Final, NamedTuple

from twisted.internet.defer import Deferred, succeed

from chapps_tw.interfaces.adoption import PastCounts
from chapps_tw.interfaces.outcome import Outcome
from chapps_tw.interfaces.state import Account, CacheVersion, Charge, Message, Spent, Unit, Usage, Window
from chapps_tw.mail.memo import Memo
from chapps_tw.state.redis.connection import Decode
from chapps_tw.state.redis.names import as_bytes, hash_tag, key_name, microseconds
from chapps_tw.state.redis.script import Script, Shape, strings
from chapps_tw.state.reply import StoreReply

MAX_UNITS = 2**53
"""Limits and amounts are clamped to this: above it, Lua's numbers cannot represent all integers."""

# Maximum size of the memory of encoded keys in bytes.
_MAX_BYTES = 8 << 20

# Bytes of encoded charges, without their head.
_ENCODED_BYTES = 1000

# Windows that are read by one script.
_BATCH = 100

# Longest reservation in seconds.
_LONGEST = 366 * 86400.0

# Instead of an amount: see charges.lua.
_ONE_MORE, _DISTINCT = -1, -2

_pack_amount = Struct("<d").pack
_pack_figures = Struct("<4d").pack
_OUTCOMES = tuple(Outcome(number) for number in range(len(Outcome)))
_NONE: Final = b"$0\r\n\r\n"
_DRY, _REAL = b"$1\r\n1\r\n", b"$1\r\n0\r\n"


class _Encoded(NamedTuple):
    """Charges as they are encoded for the script.

    :ivar head: keys and first arguments.
    :ivar names_recipient: whether the recipient matters.
    """

    charges: Sequence[Charge]
    shape: Shape
    head: bytes
    names_recipient: bool


class Charges:
    """Counts in accounts. A tuple of charges is encoded once: callers keep it for the next message.

    :param run: runs a script, given its shape, its encoded keys and arguments, and what decodes the reply.
    :param run_aside: likewise, where it does not delay requests.
    :param prefix: of all keys.
    :param unique_token: returns a token that was never issued before.
    :param version_key: key of the version of the cached values, encoded.
    :param outdated: called when a version turned out to be outdated.
    """

    def __init__(
        self,
        run: Callable[[Shape, bytes, Decode], StoreReply[Any]],
        run_aside: Callable[[Shape, bytes], Deferred[Any]],
        prefix: bytes,
        unique_token: Callable[[], bytes],
        version_key: bytes,
        outdated: Callable[[], None],
    ) -> None:
        self._run = run
        self._run_aside = run_aside
        self._prefix = prefix
        self._unique_token = unique_token
        self._version_key = version_key
        self._outdated = outdated
        self._keys: Memo[Account, bytes] = Memo(_MAX_BYTES)
        self._distinct_keys: Memo[Account, bytes] = Memo(_MAX_BYTES)
        # By identity.
        self._encoded: Memo[tuple[int, bool, bool], _Encoded] = Memo(2 * _MAX_BYTES)
        accounts = ("entries", "upkeep", "distinct", "charges")
        self._spend = lru_cache(64)(Script("version", *accounts, "spend").shape)
        self._usage, self._reset = Script(*accounts, "usage"), Script(*accounts, "reset")
        self._adopt = Script(*accounts, "adopt_counts")

    def spend(
        self, message: Message, charges: Sequence[Charge], version: CacheVersion | None, dry: bool
    ) -> StoreReply[Spent]:
        """Count a message; change nothing if ``dry``."""
        instance, name, whole, reserve = message
        encoded = self._encoded.get((id(charges), whole, dry))
        if encoded is None or encoded.charges is not charges:
            encoded = self._encode_all(charges, whole, dry)
        message_name = key_name(instance) if instance else self._unique_token()
        stamp = b"" if version is None else version.stamp
        body = b"%b%b$%d\r\n%b\r\n%b$%d\r\n%b\r\n" % (
            encoded.head, _digest(name) if name and encoded.names_recipient else _NONE, len(message_name),
            message_name, _ending(whole, reserve), len(stamp), stamp,
        )  # fmt: skip
        return self._run(encoded.shape, body, self._spent)

    def _encode_all(self, charges: Sequence[Charge], whole: bool, dry: bool) -> _Encoded:
        number, keys, figures = self._encode(charges, whole)
        head = b"%b%b%b%b" % (keys, self._version_key, _DRY if dry else _REAL, figures)
        units = {charge.unit for charge in charges}
        names_recipient = Unit.DISTINCT_RECIPIENTS in units or (Unit.RECIPIENTS in units and not whole)
        encoded = _Encoded(charges, self._spend(number + 1, 7), head, names_recipient)
        if isinstance(charges, tuple):
            self._encoded.keep((id(charges), whole, dry), encoded, _ENCODED_BYTES + len(head))
        return encoded

    def _spent(self, reply: list[int]) -> Spent:
        outcome = _OUTCOMES[reply[0]]
        if outcome is Outcome.OUTDATED:
            self._outdated()
            return Spent(outcome, -1, (), 0.0)
        return Spent(outcome, reply[1], tuple(reply[3:]), reply[2] / 1e6)

    def _encode(self, charges: Sequence[Charge], whole: bool) -> tuple[int, bytes, bytes]:
        """Return the number of keys, and the encoded keys and figures of charges."""
        number, keys, figures = 0, b"", b""
        for account, unit, amount, limit, window, margin, min_delta in charges:
            if unit == Unit.DISTINCT_RECIPIENTS:
                number, amount = number + 2, _DISTINCT
                keys += self._distinct_keys.get(account) or self._keys_of_distinct(account)
            else:
                number, amount = number + 4, max(0, min(amount, MAX_UNITS))
                keys += self._keys.get(account) or self._keys_of(account)
                if not whole and unit == Unit.RECIPIENTS:
                    amount = _ONE_MORE
            figures += _pack_amount(amount) + _figures(limit, margin, window, min_delta)
        return number, keys, b"$%d\r\n%b\r\n" % (len(figures), figures)

    async def usage(self, windows: Sequence[Window]) -> list[Usage]:
        """Return what windows contain."""
        found: list[Usage] = []
        for start in range(0, len(windows), _BATCH):
            numbers: list[int] = await self._read(self._usage, windows[start : start + _BATCH])
            each = zip(numbers[::3], numbers[1::3], numbers[2::3], strict=True)
            found += [Usage(used, last / 1e6, oldest / 1e6) for used, last, oldest in each]
        return found

    def reset(self, windows: Sequence[Window]) -> Deferred[list[int]]:
        """Delete accounts; return what each window contained."""
        return self._read(self._reset, windows) if windows else succeed([])

    def adopt(self, counts: PastCounts) -> Deferred[int]:
        """Count messages of the past in an account; return how many were new."""
        account, window, messages = counts
        number, keys, figures = self._encode([Charge(account, Unit.MESSAGES, 0, 0, window)], True)
        words = [
            word
            for instance, at, amount in messages
            for word in (microseconds(at), b"%d" % min(amount, MAX_UNITS), key_name(instance))
        ]
        body = keys + _REAL + figures + _NONE + _NONE + strings(*words)
        return self._run_aside(self._adopt.shape(number, 4 + len(words)), body)

    def _read(self, script: Script, windows: Sequence[Window]) -> Deferred[list[int]]:
        charges = [Charge(account, unit, 0, 0, seconds) for account, unit, seconds in windows]
        number, keys, figures = self._encode(charges, True)
        return self._run_aside(script.shape(number, 4), keys + _DRY + figures + _NONE + _NONE)

    def _keys_of(self, account: Account) -> bytes:
        key = self._key(account)
        keys = strings(key, key + b":log", key + b":msg", key + b":held")
        self._keys.keep(account, keys)
        return keys

    def _keys_of_distinct(self, account: Account) -> bytes:
        key = self._key(account)
        keys = strings(key, key + b":seen")
        self._distinct_keys.keep(account, keys)
        return keys

    def _key(self, account: Account) -> bytes:
        return b"%b:%b:{%b}" % (self._prefix, hash_tag(account.space), hash_tag(account.name))


@lru_cache(4096)
def _figures(limit: int, margin: int, window: float, min_delta: float) -> bytes:
    """Encode what is the same in each request: see ``charges.lua``."""
    least, most = min(limit, MAX_UNITS), min(min(limit, MAX_UNITS) + margin, MAX_UNITS)
    return _pack_figures(least, most, round(window * 1e6), round(min_delta * 1e6))


@lru_cache(16)
def _ending(whole: bool, reserve: float) -> bytes:
    return strings(b"%d" % whole, microseconds(0.0 if whole else min(reserve, _LONGEST)))


def _digest(recipient: str) -> bytes:
    return b"$16\r\n%b\r\n" % b2a_hex(blake2b(as_bytes(recipient), digest_size=8).digest())
