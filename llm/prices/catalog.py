"""From a public model name to providers and the prices in force. Pure except for `load_catalog`.

A catalog is one reading of all routes and prices; a process keeps one in a `CatalogCache` until it is too old or the
books report that `CatalogVersion` has changed. A price that starts later needs no new reading: `resolve` goes by time.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import lru_cache, partial
from typing import NamedTuple

from django.conf import settings

from llm.dialects.openai_chat.fields import variant_of
from llm.enums import PriceSource
from llm.errors import InvalidRequest, ModelNotFound, ModelUnpriced
from llm.models import CatalogVersion, ModelRoute, Price, RateSet, RouteTarget
from llm.prices.matching import Matcher, compile_match, is_pattern, names_listed_in
from llm.prices.pricing import PriceSnapshot, RateSetSnapshot
from llm.prices.snapshots import build_snapshot, load_rate_sets
from llm.providers.registry import default_instance, find_instance

MAX_NAME_LENGTH = 200
"""As long as the columns that hold model names."""

_REMEMBERED_NAMES = 1024
"""Callers choose names; this bounds how many are cached."""


@dataclass(frozen=True, slots=True)
class ListedPrice:
    """A price row. `snapshot.effective_until` is None here: what ends the price depends on the requested name."""

    snapshot: PriceSnapshot
    is_staff: bool
    matches: Matcher
    lists_its_name: bool
    created_at: datetime


class TargetName(NamedTuple):
    """provider: by which its prices go. instance: which one is called; empty where it is named as the provider is.

    weight: its share of the calls; 0 for a fallback.
    """

    provider: str
    upstream_model: str
    instance: str = ""
    weight: int = 0


@dataclass(frozen=True, slots=True)
class Route:
    name: str
    is_active: bool
    created_at: datetime
    targets: tuple[TargetName, ...]
    allows_provider_routing: bool = False
    falls_back_on_server_error: bool = False


@dataclass(frozen=True, slots=True)
class Target:
    """price: None when none is in force and such calls are served all the same; they are recorded as unpriced.

    provider, instance, weight: see `TargetName`; instance is never empty here. credential: with which key it is called.
    """

    provider: str
    upstream_model: str
    price: PriceSnapshot | None
    instance: str = ""
    weight: int = 0
    credential: str = ""

    def __post_init__(self) -> None:
        if not self.instance:
            object.__setattr__(self, "instance", self.provider)


class ServedPrice(NamedTuple):
    """price: None if unknown. is_of_another_model: not that of the requested model."""

    price: PriceSnapshot | None
    is_of_another_model: bool = False


@dataclass(frozen=True, slots=True)
class Resolution:
    """targets: never empty; the first is to be called, the others are fallbacks in order.

    allows_provider_routing, falls_back_on_server_error: as set on the route, if there is one.
    """

    model: str
    targets: tuple[Target, ...]
    version: int
    allows_provider_routing: bool = False
    falls_back_on_server_error: bool = False
    serving: Callable[[TargetName, str], ServedPrice] | None = field(default=None, compare=False)

    def price_served(self, target: Target, reported_model: str) -> ServedPrice:
        """See `Catalog.price_served`; for the moment at which this was resolved."""
        if self.serving is None:
            return ServedPrice(target.price)
        return self.serving(TargetName(target.provider, target.upstream_model), reported_model)


@dataclass(frozen=True, slots=True)
class PublicModel:
    """One entry of GET /v1/models.

    targets: what serves it, the first one as a rule. context_length: tokens of input and output at most, in whichever
    of them has least room; None where nobody knows.
    """

    id: str
    created_at: datetime
    owned_by: str
    targets: tuple[TargetName, ...] = ()
    context_length: int | None = None


def unpriced_is_refused(provider: str) -> bool:
    """Whether calls to the provider's models are refused if no price is in force.

    Only LLM_UNPRICED_MODELS=refuse does that. Otherwise they are served, flagged and listed, and their invoice waits
    for a
    price: a provider's new model works on its first day. If a cost limit applies, the books refuse calls without a
    bound.
    """
    return bool(settings.LLM_UNPRICED_MODELS == "refuse")


@dataclass(frozen=True)
class Catalog:
    """loaded_at: time.monotonic() from before the reading began."""

    version: int
    loaded_at: float
    routes: Mapping[str, Route]
    prices: Mapping[str, tuple[ListedPrice, ...]]
    _timeline: Callable[[str, str], _Timeline] = field(init=False, repr=False, compare=False)
    _pattern_route: Callable[[str], Route | None] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        remembered = lru_cache(maxsize=_REMEMBERED_NAMES)(partial(_build_timeline, self.prices))
        object.__setattr__(self, "_timeline", remembered)
        patterns = sorted((route for route in self.routes.values() if "*" in route.name), key=_generality)
        find = lru_cache(maxsize=_REMEMBERED_NAMES)(partial(_first_match, patterns))
        object.__setattr__(self, "_pattern_route", find if patterns else _no_route)

    def resolve(
        self,
        model: str,
        *,
        at: datetime,
        default_provider: str,
        default_instance: str = "",
        unpriced: Callable[[str], bool] = unpriced_is_refused,
    ) -> Resolution:
        """Where a call for `model` goes and at which prices.

        A name without a route goes to the default provider's instance as it is. Targets without a price are dropped
        where `unpriced(provider)` refuses them. A partly unpriced model stays: only calls that use such a meter are
        unpriced.
        Raises ModelNotFound (inactive or empty route, impossible name), ModelUnpriced (no target is left), and
        InvalidRequest for a variant such as `:online` that neither a route nor a price names.
        """
        names = self._names_behind(model, TargetName(default_provider, model, default_instance))
        found = [
            Target(provider, upstream_model, self.price_for(provider, upstream_model, at=at), instance, weight)
            for provider, upstream_model, instance, weight in names
        ]
        targets = tuple(target for target in found if target.price is not None or not unpriced(target.provider))
        if not targets:
            raise ModelUnpriced(f"No price is set for the model “{model}”. Staff must set one before it can be called.")
        route = self.route_behind(model)
        if route is None or variant_of(route.name) != variant_of(model):
            self._refuse_variant(model, default_provider)
        return Resolution(
            model,
            targets,
            self.version,
            allows_provider_routing=route is not None and route.allows_provider_routing,
            falls_back_on_server_error=route is not None and route.falls_back_on_server_error,
            serving=partial(self.price_served, at=at),
        )

    def route_behind(self, model: str) -> Route | None:
        """That of the name itself, else the one whose pattern says most of the name, closed ones too."""
        route = self.routes.get(model)
        if route is None and len(model) <= MAX_NAME_LENGTH:
            return self._pattern_route(model)
        return route

    def price_for(self, provider: str, upstream_model: str, *, at: datetime) -> PriceSnapshot | None:
        return self._timeline(provider, upstream_model).at(at)

    def price_served(self, asked: TargetName, reported_model: str, *, at: datetime) -> ServedPrice:
        """The price of a call by the model that the provider reports to have served it.

        A reported name counts only if it has another price of its own. One without a price, or covered by the requested
        name's price, is an alias: a dated name, a path on a local server.
        """
        price = self.price_for(asked.provider, asked.upstream_model, at=at)
        if not reported_model or reported_model.casefold() == asked.upstream_model.casefold():
            return ServedPrice(price)
        reported = self.price_for(asked.provider, reported_model, at=at)
        if reported is None or self._covers(reported, asked) or (price is not None and price.costs_as(reported)):
            return ServedPrice(price)
        return ServedPrice(reported, is_of_another_model=True)

    def _covers(self, price: PriceSnapshot, name: TargetName) -> bool:
        listed = next(each for each in self.prices[name.provider] if each.snapshot.id == price.id)
        return listed.matches(name.upstream_model.lower())

    def _refuse_variant(self, model: str, provider: str) -> None:
        variant = variant_of(model)
        own_name = model.lower()
        if variant and not any(each.snapshot.model.lower() == own_name for each in self.prices.get(provider, ())):
            raise InvalidRequest(
                f"The variant “{variant}” of a model changes who serves it or adds a fee, so it can only be called "
                "through a route.",
                param="model",
            )

    def public_models(
        self,
        *,
        at: datetime,
        default_provider: str,
        default_instance: str = "",
        default_model: str = "",
        can_call: Callable[[str], bool] = lambda _: True,
        allowed: Set[str] = frozenset(),
    ) -> list[PublicModel]:
        """Active routes to what can be called, the default model, and the names in the default provider's price list.

        Sorted by name. allowed: only these, and all of them that can be called; if empty, all. Other names that only a
        pattern covers can be called, but not listed.
        """
        default = TargetName(default_provider, default_model, default_instance)
        listed = self._listed_models(default, at=at, can_call=can_call)
        for name in allowed - self.routes.keys():
            listed.setdefault(name, PublicModel(name, at, default_provider))
        described = (
            self._described(model, default, at=at) for model in listed.values() if not allowed or model.id in allowed
        )
        return sorted((model for model in described if model is not None), key=lambda entry: entry.id)

    def _described(self, model: PublicModel, default: TargetName, *, at: datetime) -> PublicModel | None:
        """None for a model that can't be called."""
        try:
            resolution = self.resolve(
                model.id, at=at, default_provider=default.provider, default_instance=default.instance
            )
        except (InvalidRequest, ModelNotFound, ModelUnpriced):
            return None
        windows = [target.price.context_window for target in resolution.targets if target.price is not None]
        return replace(
            model,
            targets=tuple(TargetName(each.provider, each.upstream_model, each.instance) for each in resolution.targets),
            context_length=min((window for window in windows if window is not None), default=None),
        )

    def _listed_models(
        self, default: TargetName, *, at: datetime, can_call: Callable[[str], bool]
    ) -> dict[str, PublicModel]:
        """default: where names without a route go, and the default model, "" for none."""
        listed = {
            name: PublicModel(name, created_at, default.provider)
            for name, created_at in self._listed_names(default.provider, at)
            if self.route_behind(name) is None
        }
        if default.upstream_model and self.route_behind(default.upstream_model) is None:
            listed.setdefault(default.upstream_model, PublicModel(default.upstream_model, at, default.provider))
        for route in self.routes.values():
            if "*" in route.name:
                listed |= self._listed_by_pattern(route, at, can_call)
            elif route.is_active and any(can_call(target.instance or target.provider) for target in route.targets):
                listed[route.name] = PublicModel(route.name, route.created_at, route.targets[0].provider)
        return listed

    def _listed_names(self, provider: str, at: datetime) -> Iterator[tuple[str, datetime]]:
        for price in self.prices.get(provider, ()):
            if price.lists_its_name and price.snapshot.effective_from <= at:
                yield price.snapshot.model, price.created_at

    def _listed_by_pattern(self, route: Route, at: datetime, can_call: Callable[[str], bool]) -> dict[str, PublicModel]:
        """The names that it makes of those that its first target's prices list."""
        target = next((each for each in route.targets if can_call(each.instance or each.provider)), None)
        if target is None or not route.is_active or "*" not in target.upstream_model:
            return {}
        found: dict[str, PublicModel] = {}
        for upstream_name, created_at in self._listed_names(target.provider, at):
            star = _star_in(target.upstream_model, upstream_name)
            name = route.name.replace("*", star or "")
            if star is not None and self.route_behind(name) is route:
                found[name] = PublicModel(name, created_at, target.provider)
        return found

    def _names_behind(self, model: str, default: TargetName) -> tuple[TargetName, ...]:
        route = self.route_behind(model)
        if route is None and 0 < len(model) <= MAX_NAME_LENGTH:
            return (default,)
        targets = () if route is None or not route.is_active else _targets_for(route, model)
        if not targets:
            raise ModelNotFound(f"The model “{model[:MAX_NAME_LENGTH]}” does not exist.", param="model")
        return targets


def _generality(route: Route) -> tuple[int, str]:
    return -len(route.name), route.name


def _first_match(patterns: Sequence[Route], model: str) -> Route | None:
    return next((route for route in patterns if _star_in(route.name, model) is not None), None)


def _no_route(_: str) -> Route | None:
    return None


def _star_in(pattern: str, name: str) -> str | None:
    """What the pattern's * stands for in this name; None where the name doesn't fit."""
    start, star, end = pattern.partition("*")
    if not star:
        return None
    fits = len(name) >= len(start) + len(end) and name.startswith(start) and name.endswith(end)
    return name[len(start) : len(name) - len(end)] if fits else None


def _targets_for(route: Route, model: str) -> tuple[TargetName, ...]:
    """With what the * of a pattern stands for in place of theirs; without names that no call could have."""
    star = _star_in(route.name, model)
    if star is None:
        return route.targets
    named = (target._replace(upstream_model=target.upstream_model.replace("*", star)) for target in route.targets)
    return tuple(target for target in named if 0 < len(target.upstream_model) <= MAX_NAME_LENGTH)


class CatalogCache:
    """The catalog of a process. It is replaced by one assignment, so readers in other threads need no lock."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._catalog: Catalog | None = None

    def current(self) -> Catalog | None:
        """None if there is none or it is older than LLM_CATALOG_CACHE_SECONDS: load another."""
        catalog = self._catalog
        if catalog is None or self._clock() - catalog.loaded_at > settings.LLM_CATALOG_CACHE_SECONDS:
            return None
        return catalog

    def store(self, catalog: Catalog) -> None:
        """Of two overlapping readings, the one that began later is kept."""
        if self._catalog is None or catalog.loaded_at >= self._catalog.loaded_at:
            self._catalog = catalog

    def invalidate(self, seen_version: int) -> None:
        """The books saw this version in the database: drop a catalog of any other."""
        if self._catalog is not None and self._catalog.version != seen_version:
            self._catalog = None


def resolve_model(catalog: Catalog, model: str, *, at: datetime) -> Resolution:
    """See `Catalog.resolve`; names without a route go to the instance that LLM_PROVIDER names."""
    default = default_instance()
    return catalog.resolve(model, at=at, default_provider=default.booked_as, default_instance=default.name)


def load_catalog() -> Catalog:
    """Read all routes and prices: six queries, the version first, so that a concurrent change raises it again."""
    started = time.monotonic()
    version = CatalogVersion.current()
    return Catalog(version=version, loaded_at=started, routes=_load_routes(), prices=_load_prices())


@dataclass(frozen=True, slots=True)
class _Timeline:
    """The prices of one name, one after another: prices[i] applies from starts[i] on."""

    starts: tuple[datetime, ...] = ()
    prices: tuple[PriceSnapshot, ...] = ()

    def at(self, moment: datetime) -> PriceSnapshot | None:
        position = bisect_right(self.starts, moment)
        return self.prices[position - 1] if position else None


def _build_timeline(prices: Mapping[str, tuple[ListedPrice, ...]], provider: str, model: str) -> _Timeline:
    """Of all matching prices: staff's before imported, exact names before patterns, of staff's patterns the longest,
    then the latest.
    """
    name = model.lower()
    fitting = [price for price in prices.get(provider, ()) if price.matches(name)]
    winners: list[tuple[datetime, PriceSnapshot]] = []
    for start in sorted({price.snapshot.effective_from for price in fitting}):
        started = (price for price in fitting if price.snapshot.effective_from <= start)
        winner = max(started, key=partial(_standing, name)).snapshot
        if not winners or winners[-1][1].id != winner.id:
            winners.append((start, winner))
    starts = tuple(start for start, _ in winners)
    ends = (*starts[1:], None)
    return _Timeline(
        starts,
        tuple(
            replace(price, effective_from=start, effective_until=end)
            for (start, price), end in zip(winners, ends, strict=False)
        ),
    )


def _standing(name: str, price: ListedPrice) -> tuple[bool, bool, int, datetime, int]:
    snapshot = price.snapshot
    says = len(snapshot.model) if is_pattern(snapshot.model) else 0
    return price.is_staff, snapshot.model.lower() == name, says, snapshot.effective_from, snapshot.id


def _load_routes() -> dict[str, Route]:
    routes = ModelRoute.objects.prefetch_related("targets")
    return {route.name: _route_of(route, tuple(route.targets.all())) for route in routes}


def _route_of(route: ModelRoute, targets: Sequence[RouteTarget]) -> Route:
    return Route(
        route.name,
        route.is_active,
        route.created_at,
        tuple(_target_name(target) for target in targets),
        route.allows_provider_routing,
        route.falls_back_on_server_error,
    )


def _target_name(target: RouteTarget) -> TargetName:
    """An instance that is gone keeps its name: whoever is about to call the target finds that out."""
    instance = find_instance(target.provider)
    if instance is None:
        return TargetName(target.provider, target.upstream_model, target.provider, target.weight)
    return TargetName(instance.booked_as, target.upstream_model, instance.name, target.weight)


def _load_prices() -> dict[str, tuple[ListedPrice, ...]]:
    rate_sets = load_rate_sets(RateSet.objects.all())
    by_provider: dict[str, list[ListedPrice]] = defaultdict(list)
    for price in Price.objects.order_by("id"):
        by_provider[price.provider].append(_listed(price, rate_sets.get(price.pk, ())))
    return {provider: tuple(prices) for provider, prices in by_provider.items()}


def _listed(price: Price, rate_sets: Sequence[RateSetSnapshot]) -> ListedPrice:
    own_name = price.model.lower()
    match = price.match if price.match is not None else {"equals": own_name}
    return ListedPrice(
        snapshot=build_snapshot(price, rate_sets),
        is_staff=price.source == PriceSource.STAFF,
        matches=compile_match(match),
        lists_its_name=own_name in names_listed_in(match),
        created_at=price.created_at,
    )
