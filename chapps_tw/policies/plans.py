"""Which limits a user has, from cached values of the policy book."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

from chapps_tw.config.settings import Settings
from chapps_tw.interfaces import value_keys
from chapps_tw.interfaces.book import DomainPlan, PolicyBook, UserPlan
from chapps_tw.interfaces.state import LiveState, Unit, ValueKey
from chapps_tw.mail.addresses import split_address
from chapps_tw.mail.decision import CACHE, DATABASE
from chapps_tw.mail.memo import Memo, Memoized, size_of
from chapps_tw.policies.cached_book import Cached, CachedBook, Stored
from chapps_tw.policies.limits import Level, LimitResolver, UserLimits
from chapps_tw.policies.plan_texts import domain_text, plan_text, read_domain, read_plan, read_user, user_text
from chapps_tw.policies.recent_limits import Found, RecentLimits
from chapps_tw.policies.refresh import never

# Sizes of the caches of decoded values, of resolved limits, and of the limits of users, in bytes.
_DECODED_BYTES = 4 << 20
_RESOLVED_BYTES = 16 << 20
_RECENT_BYTES = 48 << 20

# Bytes of a limit, and of the limits of a user.
_LIMIT = 600
_RECENT = 2000

_NO_DOMAIN = DomainPlan(None, None)


class Choice(NamedTuple):
    """The plans that may apply to a user.

    :ivar own: keys of the user's plan by level. The first that exists applies: a quota may have been deleted.
    :ivar pool: key of the pool's plan, ``None`` if there is no pool.
    """

    own: Mapping[Level, ValueKey]
    pool: ValueKey | None


class Plans:
    """Finds the limits of users.

    :param due: whether to compare a cached value with the book now.
    :param now: epoch seconds, by which overrides begin and end.
    :ivar now: epoch seconds.
    :ivar resolver: resolves the limits.
    :ivar looks: lookups.
    :ivar misses: lookups for which the book was read.
    :ivar units: those of all limits that were found so far.
    """

    def __init__(
        self,
        settings: Settings,
        state: LiveState,
        book: PolicyBook,
        now: Callable[[], float],
        due: Callable[[Hashable], bool] = never,
    ) -> None:
        self._default = settings.oqp.default_quota
        self._fold_case = settings.chapps.fold_case
        self._book = book
        self.now = now
        self._version = state.version
        self._cached = CachedBook(state, settings.oqp.cache_ttl, due)
        self.resolver = LimitResolver(settings.oqp)
        self.looks = self.misses = 0
        self.units: set[Unit] = set()
        self._users = Memoized(read_user, _DECODED_BYTES)
        self._domains = Memoized(read_domain, _DECODED_BYTES)
        self._plans = Memoized(read_plan, _DECODED_BYTES)
        self._decoders: dict[str, Mapping[str, object]] = {"user": self._users, "domain": self._domains}
        self._resolved: Memo[tuple[str, ...], UserLimits] = Memo(_RESOLVED_BYTES)
        self._found: Memo[tuple[str, str], Found] = Memo(_RECENT_BYTES)

    def domain_of(self, user: str, sender: str) -> str:
        """Return the domain whose plan applies to a user: that of the login if it is an address, else the sender's.

        :param user: in normal form.
        :returns: ``""`` if neither has one.
        """
        return ("@" in user and split_address(user, self._fold_case)[1]) or split_address(sender, self._fold_case)[1]

    @property
    def missing_default(self) -> str:
        """Why a user has no limits though ``default_quota`` is set; ``""`` if it is not set."""
        return f"there is no quota {self._default}: see [OutboundQuotaPolicy] default_quota" if self._default else ""

    def recall(self, user: str, domain: str) -> Found | None:
        """Return the limits of a user if all values are in the memory of this process, as for the last request.

        :param domain: from :meth:`domain_of`.
        """
        found = self._found.get((user, domain))
        if found is None:
            return None
        version, recent = self._version(), found.recent
        limits = recent.limits
        if found.version is not version:
            if self._cached.recall(recent.keys) != recent.texts:
                return None
            # In its place: it does not become larger.
            found = self._found[user, domain] = Found(limits, version, CACHE, recent)
        self.looks += 1
        if not limits.overrides and not limits.domain_overrides:
            return found
        return found._replace(limits=self.resolver.at(limits, self.now()))

    async def read(self, user: str, domain: str, keep: bool = True) -> Found:
        """Return the limits of a user. Values that are not cached are read from the book.

        :param domain: from :meth:`domain_of`.
        :param keep: whether to cache what was read, and to compare what is cached with the book when that is due.
        :raises StateUnavailable, BookUnavailable: if the live state or the book is unavailable.
        """
        self.looks += 1
        found, source = self._found.get((user, domain)), CACHE
        recent = found.recent if found and keep else None
        if recent is None or not await self._cached.is_unchanged(recent.keys, recent.texts, self._query):
            recent, source = await self._find(user, domain, keep)
            self.misses += source is DATABASE
        return Found(self._at(recent.limits), None, source, recent)

    def _at(self, limits: UserLimits) -> UserLimits:
        if not limits.overrides and not limits.domain_overrides:
            return limits
        return self.resolver.at(limits, self.now())

    async def _find(self, user: str, domain: str, keep: bool) -> tuple[RecentLimits, str]:
        """Return the limits of a user, and the source of the values."""
        keys: tuple[ValueKey, ...] = (value_keys.user_plan(user), value_keys.domain_plan(domain))[: 2 if domain else 1]
        first = await self._cached.read(keys, self._query, keep, self._usable)
        texts, sources = list(first.texts), {first.source}
        choice = self._choose(*self._decoded(texts))
        own = iter(choice.own.values())
        wanted = tuple(filter(None, (choice.pool, next(own, None))))
        while wanted:
            found = await self._cached.read(wanted, self._query, keep, self._usable)
            keys += wanted
            texts += found.texts
            sources.add(found.source)
            is_missing = choice.own and self._plans[texts[-1]] is None
            wanted = tuple(islice(own, 1)) if is_missing else ()
        limits = self._resolve(tuple(texts), len(first.texts))
        recent = RecentLimits(keys, texts, limits, user, domain)
        self._found.keep((user, domain), Found(limits, None, CACHE, recent), _RECENT + size_of(user))
        return recent, DATABASE if DATABASE in sources else CACHE

    async def read_pool(self, domain: str) -> UserLimits:
        """Return the limits of a domain's pool, as those of a user without own ones.

        :raises StateUnavailable, BookUnavailable: if the live state or the book is unavailable.
        """
        first = await self._cached.read((value_keys.domain_plan(domain),), self._query, True, self._usable)
        plan = self._domains[first.texts[0]]
        pool = None
        if plan.pool is not None:
            second = await self._cached.read((value_keys.plan(plan.pool),), self._query, True, self._usable)
            pool = self._plans[second.texts[0]]
        limits = self.resolver.resolve(UserPlan(False, None), plan, Level.USER, None, pool)
        return self._at(limits)

    def _decoded(self, texts: Sequence[str]) -> tuple[UserPlan, DomainPlan]:
        return self._users[texts[0]], self._domains[texts[1]] if len(texts) > 1 else _NO_DOMAIN

    def _choose(self, user: UserPlan, domain: DomainPlan) -> Choice:
        """Return which plans may apply."""
        own = {}
        if user.quota is not None:
            own[Level.USER] = value_keys.plan(user.quota)
        if domain.each is not None:
            own[Level.DOMAIN] = value_keys.plan(domain.each)
        if self._default:
            own[Level.DEFAULT] = value_keys.plan_named(self._default)
        return Choice(own, None if domain.pool is None else value_keys.plan(domain.pool))

    def _resolve(self, texts: tuple[str, ...], before: int) -> UserLimits:
        """Resolve limits, once for all users with the same texts.

        :param before: how many texts precede those of plans: of the pool, if there is one, and of the levels tried.
        """
        limits = self._resolved.get(texts)
        if limits is None:
            user, domain = self._decoded(texts[:before])
            choice = self._choose(user, domain)
            found = [self._plans[text] for text in texts[before:]]
            pool = found.pop(0) if choice.pool else None
            tried = [*zip(choice.own, found, strict=False)] or [(Level.USER, None)]
            limits = self.resolver.resolve(user, domain, *tried[-1], pool)
            self.units.update(limit.unit for limit in limits.active)
            self._resolved.keep(texts, limits, size_of(texts) + _LIMIT * len(limits.active))
        return limits

    def _usable(self, cached: Cached) -> Cached:
        """Leave out texts that cannot be decoded."""
        return {key: text for key, text in cached.items() if self._is_readable(key, text)}

    def _is_readable(self, key: ValueKey, text: str) -> bool:
        try:
            self._decoders.get(key.space, self._plans)[text]
        except ValueError:
            return False
        return True

    async def _query(self, keys: Sequence[ValueKey], cached: Cached) -> Sequence[Stored]:
        stored = {key: await self._stored(key) for key in keys}
        texts = [*cached.items(), *((key, text) for key, (text, _) in stored.items())]
        if self._default or any(key.space == "domain" and self._domains[text].each is not None for key, text in texts):
            # Cached like users with a quota of their own, so that an outage of the database does not stop them.
            stored = {key: each._replace(known=each.known or key.space == "user") for key, each in stored.items()}
        return [stored[key] for key in keys]

    async def _stored(self, key: ValueKey) -> Stored:
        """Read a value from the book."""
        if key.space == "user":
            user = await self._book.user_plan(key.owner)
            return Stored(user_text(user), user.quota is not None)
        if key.space == "domain":
            return Stored(domain_text(await self._book.domain_plan(key.owner)))
        if key.space == "quota":
            plan = await self._book.plan(int(key.owner))
        else:
            plan = await self._book.plan_named(key.owner)
        return Stored(plan_text(plan), plan is not None)
