import threading
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings

from llm.enums import PriceSource
from llm.errors import InvalidRequest, ModelNotFound, ModelUnpriced
from llm.models import CatalogVersion, ModelRoute, Price, Rate, RateSet, RouteTarget
from llm.models.catalog import ImmutableRowError
from llm.prices.catalog import (
    Catalog,
    CatalogCache,
    PublicModel,
    Resolution,
    TargetName,
    load_catalog,
    resolve_model,
    unpriced_is_refused,
)
from llm.prices.matching import pattern_clause
from llm.types import Service
from llmproject.providers import InstanceSettings

pytestmark = pytest.mark.django_db

JANUARY = datetime(2026, 1, 1, tzinfo=UTC)
FEBRUARY = datetime(2026, 2, 1, tzinfo=UTC)
MARCH = datetime(2026, 3, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


def add_price(
    model: str = "gpt-4o",
    *,
    provider: str = "openai",
    since: datetime = JANUARY,
    source: PriceSource = PriceSource.IMPORTED,
    match: dict[str, Any] | None = None,
    usd: str = "2.50",
    context_window: int | None = None,
) -> Price:
    price = Price.objects.create(
        provider=provider,
        model=model,
        effective_from=since,
        source=source,
        match=match,
        context_window=context_window,
    )
    rate_set = RateSet.objects.create(price=price)
    Rate.objects.create(rate_set=rate_set, meter="input", amount=Decimal(usd))
    return price


def add_route(name: str, *targets: tuple[str, str], is_active: bool = True) -> ModelRoute:
    route = ModelRoute.objects.create(name=name, is_active=is_active)
    for position, (provider, upstream_model) in enumerate(targets):
        RouteTarget.objects.create(route=route, position=position, provider=provider, upstream_model=upstream_model)
    return route


def refuse(provider: str) -> bool:
    return True


def flag(provider: str) -> bool:
    return False


def resolve(model: str, *, at: datetime = MARCH, provider: str = "openai", unpriced: Any = refuse) -> Resolution:
    return load_catalog().resolve(model, at=at, default_provider=provider, unpriced=unpriced)


def price_in_force(model: str, at: datetime = MARCH, provider: str = "openai") -> int | None:
    snapshot = load_catalog().price_for(provider, model, at=at)
    return snapshot.id if snapshot else None


def test_a_name_without_a_route_goes_to_the_default_provider_as_it_is() -> None:
    price = add_price("gpt-4o")

    resolution = resolve("gpt-4o")

    (target,) = resolution.targets
    assert (resolution.model, target.provider, target.upstream_model) == ("gpt-4o", "openai", "gpt-4o")
    assert target.price is not None
    assert target.price.id == price.id
    assert [dict(rate_set.rates) for rate_set in target.price.rate_sets] == [{"input": 2_500_000}]
    assert resolution.version == CatalogVersion.current()


def test_a_route_gives_its_targets_in_order() -> None:
    add_price("gpt-4o")
    add_price("claude-opus-5", provider="anthropic")
    route = add_route("smart", ("anthropic", "claude-opus-5"))
    RouteTarget.objects.create(route=route, position=9, provider="openai", upstream_model="gpt-4o")

    targets = resolve("smart", provider="echo").targets

    assert [(target.provider, target.upstream_model) for target in targets] == [
        ("anthropic", "claude-opus-5"),
        ("openai", "gpt-4o"),
    ]


def test_a_route_wins_over_a_model_of_the_same_name() -> None:
    add_price("gpt-4o")
    add_price("gpt-4o-mini")
    add_route("gpt-4o", ("openai", "gpt-4o-mini"))

    assert resolve("gpt-4o").targets[0].upstream_model == "gpt-4o-mini"


def test_an_inactive_or_empty_route_does_not_exist() -> None:
    add_price("gpt-4o")
    add_route("off", ("openai", "gpt-4o"), is_active=False)
    add_route("empty")
    for name in ("off", "empty"):
        with pytest.raises(ModelNotFound, match=f"“{name}” does not exist"):
            resolve(name, unpriced=flag)


@pytest.mark.parametrize("name", ["", "x" * 201])
def test_an_impossible_name_is_not_found(name: str) -> None:
    with pytest.raises(ModelNotFound):
        resolve(name, unpriced=flag)


def test_a_model_without_a_price_is_refused_or_flagged() -> None:
    with pytest.raises(ModelUnpriced, match="“unheard-of”") as refusal:
        resolve("unheard-of")
    assert (refusal.value.code, refusal.value.http_status) == ("model_not_priced", 400)

    (target,) = resolve("unheard-of", unpriced=flag).targets
    assert target.price is None


def test_targets_without_a_price_are_dropped_where_they_are_refused() -> None:
    add_price("gpt-4o")
    add_route("smart", ("anthropic", "unheard-of"), ("openai", "gpt-4o"), ("echo", "echo"))

    targets = resolve("smart", unpriced=lambda provider: provider != "echo").targets

    assert [target.provider for target in targets] == ["openai", "echo"]


@pytest.mark.parametrize(
    ("policy", "refused"),
    [
        ("", set()),
        ("refuse", {"openai", "anthropic", "openai_compatible", "echo", "mine"}),
        ("flag", set()),
    ],
)
def test_models_need_a_price_only_where_the_setting_says_so(settings: Any, policy: str, refused: set[str]) -> None:
    settings.LLM_UNPRICED_MODELS = policy
    providers = ("openai", "anthropic", "openai_compatible", "echo", "mine")
    assert {provider for provider in providers if unpriced_is_refused(provider)} == refused


def test_the_latest_price_that_has_begun_is_in_force() -> None:
    first = add_price(since=JANUARY)
    second = add_price(since=FEBRUARY)

    assert price_in_force("gpt-4o", JANUARY - MICROSECOND) is None
    assert price_in_force("gpt-4o", JANUARY) == first.id
    assert price_in_force("gpt-4o", FEBRUARY - MICROSECOND) == first.id
    assert price_in_force("gpt-4o", FEBRUARY) == second.id


def test_a_snapshot_says_until_when_it_holds() -> None:
    add_price(since=JANUARY)
    add_price(since=FEBRUARY)
    catalog = load_catalog()

    first = catalog.price_for("openai", "gpt-4o", at=JANUARY)
    second = catalog.price_for("openai", "gpt-4o", at=MARCH)

    assert first is not None
    assert second is not None
    assert (first.effective_from, first.effective_until) == (JANUARY, FEBRUARY)
    assert (second.effective_from, second.effective_until) == (FEBRUARY, None)


def test_a_staff_price_wins_over_later_imports_until_staff_set_another() -> None:
    imported = add_price(since=JANUARY)
    staff = add_price(since=FEBRUARY, source=PriceSource.STAFF)
    add_price(since=MARCH)

    assert price_in_force("gpt-4o", FEBRUARY - MICROSECOND) == imported.id
    assert price_in_force("gpt-4o", FEBRUARY) == staff.id
    assert price_in_force("gpt-4o", MARCH) == staff.id


def test_staff_win_over_an_import_of_the_same_moment() -> None:
    staff = add_price(source=PriceSource.STAFF)
    add_price()
    assert price_in_force("gpt-4o") == staff.id


def test_an_exact_name_wins_over_a_pattern_even_if_that_is_newer() -> None:
    exact = add_price("gpt-4o-mini", since=FEBRUARY)
    pattern = add_price("gpt-4o", match={"starts_with": "gpt-4o"}, since=JANUARY)
    newer = add_price("gpt-4o", match={"starts_with": "gpt-4o"}, since=MARCH)

    assert price_in_force("gpt-4o-mini", JANUARY) == pattern.id
    assert price_in_force("gpt-4o-mini", FEBRUARY) == exact.id
    assert price_in_force("gpt-4o-mini", MARCH) == exact.id
    assert price_in_force("gpt-4o-2024-08-06", MARCH) == newer.id


def test_of_staffs_patterns_the_one_that_says_most_wins_whichever_is_newer() -> None:
    def staff(model: str, since: datetime) -> int:
        match = pattern_clause(model) if "*" in model else None
        return add_price(model, match=match, since=since, source=PriceSource.STAFF).id

    add_price("ft:gpt-4.1-mini-x")
    narrow, wide = staff("ft:GPT-4.1-mini-*", JANUARY), staff("ft:*", FEBRUARY)
    newer, exact = staff("ft:gpt-4.1-mini-*", FEBRUARY), staff("ft:gpt-4.1-mini-mine", JANUARY)
    assert price_in_force("ft:gpt-4.1-mini-x", JANUARY) == narrow
    assert price_in_force("ft:gpt-4.1-mini-x", FEBRUARY) == newer
    assert price_in_force("FT:gpt-4.1-MINI-", FEBRUARY) == newer
    assert price_in_force("ft:gpt-4.1-mini", FEBRUARY) == wide
    assert price_in_force("ft:gpt-4.1-mini-mine", FEBRUARY) == exact
    assert price_in_force("gpt-4.1-mini", FEBRUARY) is None


def test_names_are_compared_without_regard_to_case() -> None:
    price = add_price("GPT-4o")
    assert price_in_force("gpt-4O") == price.id


def test_a_price_holds_for_its_provider_alone() -> None:
    add_price("gpt-4o")
    assert price_in_force("gpt-4o", provider="openai_compatible") is None


def test_rates_of_other_units_become_pico_units_a_unit() -> None:
    price = Price.objects.create(provider="openai", model="m", effective_from=JANUARY, source=PriceSource.STAFF)
    rate_set = RateSet.objects.create(price=price, service_tier="flex", min_prompt_tokens=5)
    Rate.objects.create(rate_set=rate_set, meter="web_searches", amount=Decimal(10), per_units=1000)
    Rate.objects.create(rate_set=rate_set, meter="requests", amount=Decimal("0.005"), per_units=1)

    snapshot = load_catalog().price_for("openai", "m", at=MARCH)

    assert snapshot is not None
    (loaded,) = snapshot.rate_sets
    assert (loaded.id, loaded.service, loaded.min_prompt_tokens) == (rate_set.id, Service("flex"), 5)
    assert loaded.rates == {"web_searches": 10_000_000_000, "requests": 5_000_000_000}


def test_loading_takes_as_many_queries_however_much_there_is() -> None:
    for number in range(5):
        add_price(f"model-{number}")
        add_route(f"route-{number}", ("openai", f"model-{number}"))

    with CaptureQueriesContext(
        connection,
    ) as queries:
        load_catalog()

    assert len(queries) == 6


def test_names_that_callers_make_up_are_forgotten_again() -> None:
    add_price("gpt-4o")
    catalog = load_catalog()

    for number in range(3000):
        catalog.resolve(f"made-up-{number}", at=MARCH, default_provider="openai", unpriced=flag)

    assert catalog._timeline.cache_info().currsize == 1024  # type: ignore[attr-defined]


def test_the_model_list_has_active_routes_the_default_model_and_listed_names() -> None:
    price = add_price("gpt-4o", match={"or": [{"equals": "gpt-4o"}, {"starts_with": "gpt-4o-2024"}]})
    add_price("gpt-4", match={"starts_with": "gpt-4-"})
    add_price("claude-opus-5", provider="anthropic")
    add_price("gpt-9", since=MARCH + MICROSECOND)
    route = add_route("smart", ("anthropic", "claude-opus-5"))
    add_route("off", ("openai", "gpt-4o"), is_active=False)
    add_price("off")

    listed = load_catalog().public_models(at=MARCH, default_provider="openai", default_model="house-model")

    assert listed == [
        PublicModel("gpt-4o", price.created_at, "openai", (TargetName("openai", "gpt-4o", "openai"),)),
        PublicModel("house-model", MARCH, "openai", (TargetName("openai", "house-model", "openai"),)),
        PublicModel("smart", route.created_at, "anthropic", (TargetName("anthropic", "claude-opus-5", "anthropic"),)),
    ]


# --- Patterns ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("claude-opus-5", ("anthropic", "claude-opus-5")),
        ("claude-opus-5-fast", ("echo", "fast/opus-5")),
        ("claude-", ("anthropic", "claude-")),
        ("claude-pinned", ("openai", "gpt-4o")),
        ("claude", ("openai", "claude")),
        ("my-claude-opus-5", ("openai", "my-claude-opus-5")),
        ("Claude-opus-5", ("openai", "Claude-opus-5")),
        ("claude-*", ("anthropic", "claude-*")),
    ],
)
def test_a_name_goes_to_the_route_that_says_most_of_it(model: str, expected: tuple[str, str]) -> None:
    add_route("claude-*", ("anthropic", "claude-*"))
    add_route("claude-*-fast", ("echo", "fast/*"))
    add_route("claude-pinned", ("openai", "gpt-4o"))
    [target] = resolve(model, unpriced=flag).targets
    assert (target.provider, target.upstream_model) == expected


def test_a_closed_pattern_closes_its_names_and_a_star_needs_no_length() -> None:
    add_route("old-*", ("openai", "*"), is_active=False)
    add_route("any/*", ("openai", "*"))
    for model in ("old-gpt", "any/"):
        with pytest.raises(ModelNotFound, match=f"“{model}” does not exist"):
            resolve(model, unpriced=flag)


def test_a_name_that_grows_too_long_is_not_found() -> None:
    add_route("a*", ("openai", "a-much-longer-name-*"))
    assert resolve("a" * 100, unpriced=flag).targets[0].upstream_model == f"a-much-longer-name-{'a' * 99}"
    with pytest.raises(ModelNotFound):
        resolve("a" * 200, unpriced=flag)


def test_a_variant_passes_only_a_pattern_that_names_it() -> None:
    add_route("gpt-*", ("openai", "gpt-*"))
    add_route("ok-*:online", ("openai", "gpt-*:online"))
    with pytest.raises(InvalidRequest, match="The variant “:online” of a model"):
        resolve("gpt-4o:online", unpriced=flag)
    assert resolve("ok-4o:online", unpriced=flag).targets[0].upstream_model == "gpt-4o:online"


def test_the_model_list_has_the_names_that_a_pattern_makes_of_listed_ones() -> None:
    price = add_price("claude-opus-5", provider="anthropic")
    add_price("gpt-4o", provider="anthropic")
    add_price("claude-house")
    add_price("off-1")
    add_route("claude-*", ("anthropic", "claude-*"))
    add_route("off-*", ("openai", "off-*"), is_active=False)
    add_route("one-*", ("openai", "gpt-4o"))
    listed = load_catalog().public_models(at=MARCH, default_provider="openai")
    targets = (TargetName("anthropic", "claude-opus-5", "anthropic"),)
    assert listed == [PublicModel("claude-opus-5", price.created_at, "anthropic", targets)]
    assert load_catalog().public_models(at=MARCH, default_provider="openai", can_call=lambda _: False) == []


# --- Instances --------------------------------------------------------------------------------------------------------


def test_targets_are_priced_as_their_instance_is_booked(settings: Settings) -> None:
    settings.LLM_PROVIDERS = (
        InstanceSettings("main", "openai", api_keys=("sk-a",), weights=(1,)),
        InstanceSettings("other", "openai_compatible", base_url="http://localhost:1/v1", booked_as="other"),
    )
    settings.LLM_PROVIDER = "main"
    usual, own = add_price("gpt-4o"), add_price("gpt-4o", provider="other", usd="1")
    add_route("both", ("main", "gpt-4o"), ("other", "gpt-4o"), ("gone", "gpt-4o"))
    catalog = load_catalog()
    both = catalog.resolve("both", at=MARCH, default_provider="openai", unpriced=flag).targets
    assert [(each.instance, each.provider, each.price and each.price.id) for each in both] == [
        ("main", "openai", usual.id),
        ("other", "other", own.id),
        ("gone", "gone", None),
    ]
    [default] = resolve_model(catalog, "gpt-4o", at=MARCH).targets
    assert (default.instance, default.provider) == ("main", "openai")


def test_a_key_for_some_models_sees_all_of_them_that_can_be_called(settings: Settings) -> None:
    add_price("gpt-4o")
    add_route("off", ("openai", "gpt-4o"), is_active=False)
    allowed = {"gpt-4o", "local:8b", "off", "gpt-4o:online"}
    catalog = load_catalog()

    def listed() -> list[str]:
        models = catalog.public_models(at=MARCH, default_provider="openai", default_model="other", allowed=allowed)
        return [model.id for model in models]

    assert listed() == ["gpt-4o", "local:8b"]
    settings.LLM_UNPRICED_MODELS = "refuse"
    assert listed() == ["gpt-4o"]


def test_a_model_has_room_for_what_the_least_of_its_targets_has() -> None:
    add_price("large", context_window=1_000_000)
    add_price("small", context_window=8_000)
    add_price("unknown")
    add_route("both", ("openai", "large"), ("openai", "small"), ("openai", "unknown"))
    models = load_catalog().public_models(at=MARCH, default_provider="openai")
    assert {model.id: model.context_length for model in models} == {
        "both": 8_000,
        "large": 1_000_000,
        "small": 8_000,
        "unknown": None,
    }


def test_every_write_of_the_catalog_raises_its_version() -> None:
    versions = [CatalogVersion.current()]

    def changed() -> bool:
        versions.append(CatalogVersion.current())
        return versions[-1] > versions[-2]

    route = ModelRoute.objects.create(name="smart")
    assert changed()
    target = RouteTarget.objects.create(route=route, provider="openai", upstream_model="gpt-4o")
    assert changed()
    target.upstream_model = "gpt-4o-mini"
    target.save()
    assert changed()
    ModelRoute.objects.update(is_active=False)
    assert changed()
    target.delete()
    assert changed()
    ModelRoute.objects.all().delete()
    assert changed()
    add_price()
    assert changed()
    ModelRoute.objects.bulk_create([ModelRoute(name="a"), ModelRoute(name="b")])
    assert changed()


def test_a_change_that_is_rolled_back_leaves_the_version() -> None:
    add_route("smart", ("openai", "gpt-4o"))
    before = CatalogVersion.current()

    with pytest.raises(IntegrityError), transaction.atomic():
        ModelRoute.objects.create(name="smart")

    assert CatalogVersion.current() == before


def test_a_missing_version_row_is_version_zero_and_comes_back() -> None:
    CatalogVersion.objects.all().delete()
    assert CatalogVersion.current() == 0

    CatalogVersion.bump()

    version = CatalogVersion.current()
    assert version > 0
    CatalogVersion.ensure()
    assert CatalogVersion.current() == version


def test_a_version_never_comes_twice_even_if_the_row_was_lost() -> None:
    CatalogVersion.bump()
    before = CatalogVersion.current()
    CatalogVersion.objects.all().delete()

    CatalogVersion.bump()

    assert CatalogVersion.current() > before


def test_every_bump_grows_the_version() -> None:
    CatalogVersion.objects.create(version=2**62)

    CatalogVersion.bump()

    assert CatalogVersion.current() == 2**62 + 1


def test_there_is_one_version_row() -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        CatalogVersion.objects.create(pk=2)


def test_prices_never_change() -> None:
    price = add_price()
    rate_set = price.rate_sets.get()
    rate = rate_set.rates.get()
    before = CatalogVersion.current()

    for row in (price, rate_set, rate):
        with pytest.raises(ImmutableRowError):
            row.save()
        with pytest.raises(ImmutableRowError):
            row.delete()
        with pytest.raises(ImmutableRowError):
            type(row).objects.all().delete()
        with pytest.raises(ImmutableRowError):
            type(row).objects.update(id=99)

    assert (Price.objects.count(), RateSet.objects.count(), Rate.objects.count()) == (1, 1, 1)
    assert CatalogVersion.current() == before


@pytest.mark.parametrize(
    ("amount", "per_units", "meter"), [("-0.000001", 1_000_000, "input"), ("1", 7, "input"), ("1", 1000, "")]
)
def test_the_database_refuses_rates_that_make_no_sense(amount: str, per_units: int, meter: str) -> None:
    rate_set = add_price().rate_sets.get()
    with pytest.raises(IntegrityError), transaction.atomic():
        Rate.objects.create(rate_set=rate_set, meter=meter, amount=Decimal(amount), per_units=per_units)
    assert Rate.objects.count() == 1


def test_a_price_is_there_once_a_moment_and_source() -> None:
    add_price()
    with pytest.raises(IntegrityError), transaction.atomic():
        add_price()
    assert Price.objects.count() == 1


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def catalog_of(version: int, loaded_at: float) -> Catalog:
    return Catalog(version=version, loaded_at=loaded_at, routes={}, prices={})


def test_a_cache_gives_its_catalog_until_it_is_too_old(settings: Any) -> None:
    settings.LLM_CATALOG_CACHE_SECONDS = 30.0
    clock = Clock()
    cache = CatalogCache(clock)
    assert cache.current() is None

    catalog = catalog_of(1, loaded_at=100.0)
    cache.store(catalog)
    clock.now = 130.0
    assert cache.current() is catalog
    clock.now = 130.1
    assert cache.current() is None


def test_a_cache_drops_a_catalog_of_another_version(settings: Any) -> None:
    settings.LLM_CATALOG_CACHE_SECONDS = 30.0
    cache = CatalogCache(Clock())
    catalog = catalog_of(5, loaded_at=100.0)
    cache.store(catalog)

    cache.invalidate(5)
    assert cache.current() is catalog
    cache.invalidate(6)
    assert cache.current() is None


def test_of_two_readings_the_one_that_began_later_stays(settings: Any) -> None:
    settings.LLM_CATALOG_CACHE_SECONDS = 30.0
    cache = CatalogCache(Clock())
    newer = catalog_of(6, loaded_at=99.0)
    cache.store(newer)
    cache.store(catalog_of(5, loaded_at=98.0))
    assert cache.current() is newer


def test_threads_may_resolve_at_once() -> None:
    add_price("gpt-4o", match={"starts_with": "gpt"})
    catalog = load_catalog()
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for number in range(2000):
                catalog.resolve(f"gpt-{number}", at=MARCH, default_provider="openai", unpriced=refuse)
        except BaseException as error:  # noqa: BLE001 - whatever it is, the test is to show it
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []
