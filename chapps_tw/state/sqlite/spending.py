"""Counting a message against several limits: all or nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from hashlib import blake2b
from typing import TypeAlias

from chapps_tw.interfaces.outcome import Outcome
from chapps_tw.interfaces.state import Charge, Message, Spent, Unit, Usage, Window
from chapps_tw.state.sqlite.accounts import Accounts, AnyAccount
from chapps_tw.state.sqlite.claims import Claim, Request
from chapps_tw.state.sqlite.keys import message_key, unique_message_key

_Claims: TypeAlias = list[tuple[AnyAccount, Charge, Claim]]

_DISTINCT = Unit.DISTINCT_RECIPIENTS
_ACCEPTED, _REPEATED = Outcome.ACCEPTED, Outcome.REPEATED


def spend(db: sqlite3.Cursor, now: float, accounts: Accounts, message: Message, charges: Sequence[Charge]) -> Spent:
    """Count a message, or another recipient of it, if all charges fit."""
    request = _request(message, charges)
    if len(charges) == 1:
        # Nearly all messages.
        [charge] = charges
        account = accounts.find(db, now, charge.account, charge.unit is _DISTINCT)
        claim = account.claim(request, charge)
        outcome = claim[0]
        if outcome is _ACCEPTED or outcome is _REPEATED:
            if account.take(request, charge, claim[3]):
                accounts.note(account)
            return Spent(outcome, -1, (claim[1],), 0.0)
        return _refuse(accounts, request, [(account, charge, claim)])
    outcome, claims = _claim(db, now, accounts, request, charges)
    if outcome is not _ACCEPTED and outcome is not _REPEATED:
        return _refuse(accounts, request, claims)
    for account, charge, claim in claims:
        if account.take(request, charge, claim[3]):
            accounts.note(account)
    return Spent(outcome, -1, tuple([claim[1] for _, _, claim in claims]), 0.0)


def peek(db: sqlite3.Cursor, now: float, accounts: Accounts, message: Message, charges: Sequence[Charge]) -> Spent:
    """Return what :func:`spend` would return; change nothing."""
    accounts.trim()
    request = _request(message, charges)
    outcome, claims = _claim(db, now, accounts, request, charges)
    if outcome is not _ACCEPTED and outcome is not _REPEATED:
        return _refusal(request, claims)
    return Spent(outcome, -1, tuple([claim[1] for _, _, claim in claims]), 0.0)


def _claim(
    db: sqlite3.Cursor, now: float, accounts: Accounts, request: Request, charges: Sequence[Charge]
) -> tuple[Outcome, _Claims]:
    """Return what each charge would do; and ``REPEATED``, ``ACCEPTED``, or the outcome of one that does not fit."""
    outcome, claims = _REPEATED, []
    for charge in charges:
        account = accounts.find(db, now, charge.account, charge.unit is _DISTINCT)
        claim = account.claim(request, charge)
        claims.append((account, charge, claim))
        if claim[0] is not _REPEATED and (outcome is _REPEATED or claim[0] is not _ACCEPTED):
            outcome = claim[0]
    return outcome, claims


def _request(message: Message, charges: Sequence[Charge]) -> Request:
    instance, recipient, whole, reserve = message
    mark = b""
    if recipient and (not whole or _DISTINCT in [charge.unit for charge in charges]):
        mark = blake2b(recipient.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return message_key(instance) if instance else unique_message_key(), mark, whole, reserve


def _refuse(accounts: Accounts, request: Request, claims: _Claims) -> Spent:
    spent = _refusal(request, claims)
    if request[2]:
        # A message that is refused as a whole costs nothing.
        for account, _, _ in claims:
            if account.give_back(request):
                accounts.note(account)
    return spent


def _refusal(request: Request, claims: _Claims) -> Spent:
    """Return the result of a request that is refused."""
    outcome, decisive, longest = _REPEATED, -1, -1.0
    for index, (account, charge, claim) in enumerate(claims):
        if claim[0] is _ACCEPTED or claim[0] is _REPEATED:
            continue
        wait = account.wait(request, charge, claim)
        # 0.0 is for ever.
        if longest and (not wait or wait > longest):
            outcome, decisive, longest = claim[0], index, wait
    return Spent(outcome, decisive, tuple([claim[2] for _, _, claim in claims]), longest)


def usage(db: sqlite3.Cursor, now: float, accounts: Accounts, windows: Sequence[Window]) -> list[Usage]:
    """Return what each window contains."""
    accounts.trim()
    return [accounts.find(db, now, account, unit is _DISTINCT).usage(seconds) for account, unit, seconds in windows]


def reset(db: sqlite3.Cursor, now: float, accounts: Accounts, windows: Sequence[Window]) -> list[int]:
    """Delete all counts of the accounts; return what each window contained."""
    used = [each.used for each in usage(db, now, accounts, windows)]
    for account, is_distinct in {(account, unit is _DISTINCT) for account, unit, _ in windows}:
        accounts.delete(db, account, is_distinct)
    return used
