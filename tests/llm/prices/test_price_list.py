"""Imported prices against genai-prices itself, and what staff may set."""

import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from genai_prices.data import providers as genai_providers
from genai_prices.types import (
    ClauseEquals,
    ConditionalPrice,
    ModelInfo,
    ModelPrice,
    PriceVariant,
    StartDateConstraint,
    Tier,
    TieredPrices,
    TimeOfDateConstraint,
    Usage,
)

from llm.enums import Meter, PriceSource
from llm.errors import PriceMissing
from llm.models import CatalogVersion, Price, Rate, RateSet
from llm.prices import genai
from llm.prices.catalog import Catalog, load_catalog
from llm.prices.importing import import_prices
from llm.prices.pricing import STANDARD, PriceSnapshot, cost_of, dearest_pico, priced_service
from llm.prices.staff import PriceRefusedError, set_price
from llm.prices.terms import NewPrice, RateValue, write_prices
from llm.types import Service, TokenCounts

NOW = datetime(2026, 11, 20, tzinfo=UTC)
FAST, FLEX, PLACED = Service(speed="fast"), Service("flex"), Service(inference_geo="us")
LATER = datetime(2026, 12, 20, tzinfo=UTC)


def model_of(
    prices: ModelPrice | list[ConditionalPrice], *, name: str = "m", variants: list[PriceVariant] | None = None
) -> ModelInfo:
    return ModelInfo(id=name, match=ClauseEquals(name), prices=prices, price_variants=variants)


def usd(**prices: str) -> ModelPrice:
    return ModelPrice(**{key: Decimal(value) for key, value in prices.items()})


def serve(monkeypatch: pytest.MonkeyPatch, *models: ModelInfo) -> None:
    monkeypatch.setattr(genai, "list_models", lambda provider: list(models) if provider == "openai" else [])


def input_rates(name: str = "m") -> list[tuple[datetime, Decimal]]:
    rates = Rate.objects.filter(meter="input", rate_set__price__model=name, rate_set__service_tier="")
    rows = rates.order_by("rate_set__price__effective_from").values_list("rate_set__price__effective_from", "amount")
    return list(rows)


# --- the imported prices give what genai-prices gives ---------------------------------------------------------------


@pytest.fixture
def imported_catalog(db: None) -> Catalog:
    import_prices(effective_from=NOW)
    return load_catalog()


def listed_models(provider: str) -> list[ModelInfo]:
    return next(listed.models for listed in genai_providers if listed.id == provider)


def names_of(model: ModelInfo) -> Iterator[str]:
    """The names that a model's clauses mention, and a dated form of each."""

    def literals(clause: Any) -> Iterator[str]:
        for operand in vars(clause).values():
            if isinstance(operand, list):
                for part in operand:
                    yield from literals(part)
            else:
                yield operand

    for literal in (model.id, *literals(model.match)):
        yield from (literal, literal.upper(), f"{literal}-20261001", f"{literal}-2026-10-01")


def services_of(model: ModelInfo) -> Iterator[tuple[Service, dict[str, str]]]:
    """(service, context for genai-prices)"""
    yield STANDARD, {}
    for variant in model.price_variants or ():
        for key in ("service_tier", "speed"):
            if key in variant.when:
                yield Service(**{key: variant.when[key]}), variant.when


def random_counts(chance: random.Random, price: PriceSnapshot, service: Service) -> TokenCounts:
    """A usage of every meter that the price lists, small or beyond every context tier."""
    meters = price.rate_set_for(0, service).rates

    def some(meter: Meter) -> int:
        return chance.randrange(100_000) if meter in meters else 0

    cache_write_5m, cache_write_1h = some(Meter.CACHE_WRITE_5M), some(Meter.CACHE_WRITE_1H)
    audio_input, audio_output = some(Meter.AUDIO_INPUT), some(Meter.AUDIO_OUTPUT)
    # Cached tokens without a rate must cost as input there too.
    cache_read = chance.randrange(100_000) if Meter.INPUT in meters else 0
    plain = chance.choice((0, chance.randrange(90_000), chance.randrange(1_000_000))) if Meter.INPUT in meters else 0
    return TokenCounts(
        prompt_tokens=plain + cache_read + cache_write_5m + cache_write_1h + audio_input,
        completion_tokens=some(Meter.OUTPUT) + audio_output,
        cache_read_tokens=cache_read,
        cache_write_5m_tokens=cache_write_5m,
        cache_write_1h_tokens=cache_write_1h,
        audio_input_tokens=audio_input,
        audio_output_tokens=audio_output,
        extra_meters={"web_searches": chance.randrange(10)} if "web_searches" in meters else {},
    )


def genai_usage(counts: TokenCounts) -> Usage:
    return Usage(
        input_tokens=counts.prompt_tokens,
        output_tokens=counts.completion_tokens,
        cache_read_tokens=counts.cache_read_tokens,
        cache_write_tokens=counts.cache_write_5m_tokens + counts.cache_write_1h_tokens,
        cache_write_1h_tokens=counts.cache_write_1h_tokens,
        input_audio_tokens=counts.audio_input_tokens,
        output_audio_tokens=counts.audio_output_tokens,
        cache_audio_read_tokens=0,
        input_image_tokens=0,
        output_image_tokens=0,
        cache_image_read_tokens=0,
        web_searches=counts.extra_meters.get("web_searches", 0),
        storage_searches=0,
    )


@pytest.mark.slow
@pytest.mark.parametrize("provider", ["openai", "anthropic"])
@pytest.mark.parametrize("moment", [datetime(2025, 1, 1, tzinfo=UTC), datetime(2026, 6, 1, tzinfo=UTC), NOW])
def test_every_imported_model_costs_what_genai_prices_says(
    imported_catalog: Catalog, provider: str, moment: datetime
) -> None:
    chance = random.Random(20261120)
    listed = next(each for each in genai_providers if each.id == provider)
    compared = 0
    for model in listed.models:
        price = imported_catalog.price_for(provider, next(filter(model.is_match, names_of(model))), at=moment)
        if not genai.price_history(model):
            assert price is None
            continue
        assert price is not None
        for service, context in services_of(model):
            if priced_service(service) not in {priced_service(rate_set.service) for rate_set in price.rate_sets}:
                continue
            for _ in range(20):
                counts = random_counts(chance, price, service)
                theirs = model.calc_price(
                    genai_usage(counts), listed, genai_request_timestamp=moment, price_context=context
                )
                assert cost_of(counts, price, service).pico == theirs.total_price * 10**12, (model.id, service)
                compared += 1
    assert compared >= 20 * 20


@pytest.mark.slow
@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_every_name_finds_the_model_that_genai_prices_finds(imported_catalog: Catalog, provider: str) -> None:
    models = listed_models(provider)
    compared = 0
    for name in {name for model in models for name in names_of(model)}:
        theirs = next((model for model in models if model.is_match(name) and genai.price_history(model)), None)
        ours = imported_catalog.price_for(provider, name, at=NOW)
        assert (ours.model if ours else None) == (theirs.id if theirs else None), name
        compared += 1
    assert compared > 100


@pytest.mark.slow
def test_a_tier_that_has_not_begun_is_not_listed(imported_catalog: Catalog) -> None:
    def tiers(moment: datetime) -> set[str]:
        price = imported_catalog.price_for("openai", "gpt-4o", at=moment)
        assert price is not None
        return {rate_set.service.service_tier for rate_set in price.rate_sets}

    assert tiers(datetime(2026, 10, 11, 23, 59, tzinfo=UTC)) == {""}
    assert tiers(datetime(2026, 10, 12, tzinfo=UTC)) == {"", "priority", "fast"}


# --- reading one model ----------------------------------------------------------------------------------------------


def test_a_plain_price_holds_for_all_time() -> None:
    ((start, content),) = genai.price_history(model_of(usd(input_mtok="2.5", output_mtok="10")))

    assert start == datetime(2000, 1, 1, tzinfo=UTC)
    assert content.rate_sets == {(STANDARD, 0): {"input": RateValue(Decimal("2.5")), "output": RateValue(Decimal(10))}}
    assert content.match == {"equals": "m"}
    assert content.unpriced_meters == ()


def test_a_tier_begins_one_token_after_its_start() -> None:
    tiered = TieredPrices(base=Decimal(1), tiers=[Tier(200_000, Decimal(2)), Tier(400_000, Decimal(3))])
    prices = ModelPrice(input_mtok=tiered, output_mtok=Decimal(5))

    ((_, content),) = genai.price_history(model_of(prices))

    rates = {key: {meter: rate.amount for meter, rate in values.items()} for key, values in content.rate_sets.items()}
    assert rates == {
        (STANDARD, 0): {"input": 1, "output": 5},
        (STANDARD, 200_001): {"input": 2, "output": 5},
        (STANDARD, 400_001): {"input": 3, "output": 5},
    }


def test_start_dates_make_prices_of_their_own() -> None:
    prices = [
        ConditionalPrice(prices=usd(input_mtok="2")),
        ConditionalPrice(StartDateConstraint(date(2026, 3, 13)), prices=usd(input_mtok="1")),
    ]
    history = genai.price_history(model_of(prices))
    assert [(start, content.rate_sets[STANDARD, 0]["input"].amount) for start, content in history] == [
        (datetime(2000, 1, 1, tzinfo=UTC), Decimal(2)),
        (datetime(2026, 3, 13, tzinfo=UTC), Decimal(1)),
    ]


def test_variants_become_tiers_and_batch_jobs_are_left_out() -> None:
    variants = [
        PriceVariant({"service_tier": "default"}, usd()),
        PriceVariant({"service_tier": "flex"}, usd(input_mtok="1"), StartDateConstraint(date(2026, 10, 12))),
        PriceVariant({"speed": "fast"}, usd(output_mtok="50")),
        PriceVariant({"processing": "batch"}, usd(input_mtok="1")),
        PriceVariant({"region": "eu"}, usd(input_mtok="9")),
    ]
    model = model_of(usd(input_mtok="2", output_mtok="10"), variants=variants)

    (_, before), (start, after) = genai.price_history(model)

    assert start == datetime(2026, 10, 12, tzinfo=UTC)
    assert set(before.rate_sets) == {(STANDARD, 0), (FAST, 0)}
    assert set(after.rate_sets) == {(STANDARD, 0), (FAST, 0), (FLEX, 0)}
    assert after.rate_sets[FLEX, 0] == {"input": RateValue(Decimal(1)), "output": RateValue(Decimal(10))}
    assert after.rate_sets[FAST, 0] == {"input": RateValue(Decimal(2)), "output": RateValue(Decimal(50))}
    assert "Left out: prices for region=eu." in after.note
    assert "batch" not in after.note


def test_of_prices_by_time_of_day_the_dearest_is_taken() -> None:
    prices = [
        ConditionalPrice(prices=usd(input_mtok="0.27", output_mtok="1")),
        ConditionalPrice(
            TimeOfDateConstraint(time(16, 30), time(0, 30)), prices=usd(input_mtok="0.13", output_mtok="2")
        ),
    ]
    ((_, content),) = genai.price_history(model_of(prices))
    assert content.rate_sets == {(STANDARD, 0): {"input": RateValue(Decimal("0.27")), "output": RateValue(Decimal(2))}}
    assert "Prices vary by time of day; the highest was taken." in content.note


def test_seven_decimals_are_rounded_half_up_and_noted() -> None:
    ((_, content),) = genai.price_history(model_of(usd(input_mtok="0.1234565", output_mtok="0.00000049")))
    assert {meter: rate.amount for meter, rate in content.rate_sets[STANDARD, 0].items()} == {
        "input": Decimal("0.123457"),
        "output": Decimal(0),
    }
    assert "Rounded input_mtok 0.1234565 to 0.123457." in content.note
    assert "Rounded output_mtok 0.00000049 to 0.000000." in content.note


def test_units_beside_the_tokens_have_rates_and_the_rest_is_unpriced() -> None:
    prices = usd(input_mtok="1", web_searches_kcount="10", requests_kcount="5", input_image_mtok="8")
    ((_, content),) = genai.price_history(model_of(prices))
    assert content.rate_sets[STANDARD, 0] == {
        "input": RateValue(Decimal(1)),
        "web_searches": RateValue(Decimal(10), 1000),
        "requests": RateValue(Decimal(5), 1000),
    }
    assert content.unpriced_meters == ("input_image_mtok",)


def test_a_price_of_5_minute_writes_wins_over_one_of_writes_in_general() -> None:
    prices = usd(input_mtok="1", cache_write_mtok="2", cache_write_5m_mtok="3", cache_write_1h_mtok="4")
    ((_, content),) = genai.price_history(model_of(prices))
    assert content.rate_sets[STANDARD, 0]["cache_write_5m"].amount == 3
    assert content.rate_sets[STANDARD, 0]["cache_write_1h"].amount == 4


@pytest.mark.parametrize("prices", [usd(), usd(audio_hours="0.36")])
def test_what_has_no_price_of_tokens_is_no_price(prices: ModelPrice) -> None:
    assert genai.price_history(model_of(prices)) == []


@pytest.mark.parametrize(
    ("name", "has_places"),
    [
        *((name, True) for name in ("claude-opus-4-6", "claude-sonnet-4-8", "claude-opus-5", "claude-haiku-5-5")),
        *((name, False) for name in ("claude-opus-4-5", "claude-sonnet-4-0", "claude-3-7-sonnet-latest", "claude-2")),
        *((name, False) for name in ("claude-v1", "claude-instant-1", "gpt-5")),
    ],
)
def test_models_that_can_be_placed_have_a_price_for_it(name: str, has_places: bool) -> None:
    ((_, content),) = genai.price_history(model_of(usd(input_mtok="3"), name=name))
    assert ((PLACED, 0) in content.rate_sets) is has_places
    assert ("Added: 1.1 times as much for inference_geo=us." in content.note) is has_places


def test_a_placed_call_costs_a_tenth_more_in_each_class_of_tokens_fast_mode_too() -> None:
    prices = ModelPrice(
        input_mtok=TieredPrices(base=Decimal(5), tiers=[Tier(200_000, Decimal(10))]),
        output_mtok=Decimal(25),
        cache_read_mtok=Decimal("0.5"),
        cache_write_mtok=Decimal("6.25"),
        cache_write_1h_mtok=Decimal("0.000005"),
        web_searches_kcount=Decimal(10),
    )
    fast = PriceVariant({"speed": "fast"}, usd(input_mtok="30", output_mtok="150"))
    ((_, content),) = genai.price_history(model_of(prices, name="claude-opus-4-6", variants=[fast]))

    def amounts(service: Service, size: int = 0) -> dict[str, str]:
        return {meter: f"{value.amount.normalize():f}" for meter, value in content.rate_sets[service, size].items()}

    searches = {"web_searches": "10"}
    writes = {"cache_read": "0.55", "cache_write_5m": "6.875", "cache_write_1h": "0.000006"}
    assert amounts(PLACED) == {"input": "5.5", "output": "27.5", **writes, **searches}
    assert amounts(PLACED, 200_001) == {"input": "11", "output": "27.5", **writes, **searches}
    both = Service(speed="fast", inference_geo="us")
    assert amounts(both) == {"input": "33", "output": "165", **writes, **searches}
    assert "Rounded cache_write_1h in us 0.0000055 to 0.000006." in content.note


@pytest.mark.django_db
def test_fast_mode_that_was_imported_as_a_tier_is_no_other_price(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(usd(input_mtok="2"), variants=[PriceVariant({"speed": "fast"}, usd(input_mtok="9"))])
    serve(monkeypatch, model)
    ((start, content),) = genai.price_history(model)
    as_tiers = {(STANDARD, 0): content.rate_sets[STANDARD, 0], (Service("fast"), 0): content.rate_sets[FAST, 0]}
    write_prices([NewPrice("openai", "m", start, PriceSource.IMPORTED, replace(content, rate_sets=as_tiers))])
    assert import_prices(effective_from=LATER).new_prices == 0
    price = load_catalog().price_for("openai", "m", at=NOW)
    assert price is not None
    for service in (Service("fast"), FAST, Service("standard", "fast", "global")):
        assert cost_of(TokenCounts(10**6, 0), price, service).pico == 9 * 10**12


# --- importing ------------------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_a_second_import_writes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    serve(monkeypatch, model_of(usd(input_mtok="0.0000004")), model_of(usd(audio_hours="1"), name="speech"))
    first = import_prices()
    version = CatalogVersion.current()

    second = import_prices()

    assert (first.models, first.new_prices, first.unchanged, first.rounded) == (1, 1, 0, 1)
    assert (second.models, second.new_prices, second.unchanged, second.rounded) == (1, 0, 1, 1)
    assert first.without_price == second.without_price == ("speech",)
    assert (Price.objects.count(), RateSet.objects.count(), Rate.objects.count()) == (1, 1, 1)
    assert CatalogVersion.current() == version


@pytest.mark.django_db
def test_a_changed_price_holds_from_the_import_on(monkeypatch: pytest.MonkeyPatch) -> None:
    serve(monkeypatch, model_of(usd(input_mtok="2")))
    import_prices(effective_from=NOW)
    serve(monkeypatch, model_of(usd(input_mtok="1")))

    summary = import_prices(effective_from=LATER)

    assert (summary.new_prices, summary.unchanged) == (1, 0)
    assert input_rates() == [(genai.ALWAYS, Decimal(2)), (LATER, Decimal(1))]
    assert import_prices(effective_from=LATER).new_prices == 0


@pytest.mark.django_db
def test_a_price_with_a_start_date_holds_from_that_date(monkeypatch: pytest.MonkeyPatch) -> None:
    serve(monkeypatch, model_of(usd(input_mtok="2")))
    import_prices(effective_from=NOW)
    dated = [
        ConditionalPrice(prices=usd(input_mtok="2")),
        ConditionalPrice(StartDateConstraint(date(2026, 12, 1)), prices=usd(input_mtok="1")),
        ConditionalPrice(StartDateConstraint(date(2027, 1, 1)), prices=usd(input_mtok="3")),
    ]
    serve(monkeypatch, model_of(dated))

    assert import_prices(effective_from=LATER).new_prices == 2
    assert input_rates() == [
        (genai.ALWAYS, Decimal(2)),
        (datetime(2026, 12, 1, tzinfo=UTC), Decimal(1)),
        (datetime(2027, 1, 1, tzinfo=UTC), Decimal(3)),
    ]
    assert import_prices(effective_from=LATER).new_prices == 0


@pytest.mark.django_db
def test_an_announced_price_that_was_taken_back_is_replaced_a_microsecond_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    announced = datetime(2027, 1, 1, tzinfo=UTC)
    dated = [
        ConditionalPrice(prices=usd(input_mtok="2")),
        ConditionalPrice(StartDateConstraint(announced.date()), prices=usd(input_mtok="9")),
    ]
    serve(monkeypatch, model_of(dated))
    import_prices(effective_from=NOW)
    serve(monkeypatch, model_of(usd(input_mtok="2")))

    assert import_prices(effective_from=LATER).new_prices == 1
    assert input_rates()[-2:] == [
        (announced, Decimal(9)),
        (announced + timedelta(microseconds=1), Decimal(2)),
    ]
    assert import_prices(effective_from=LATER).new_prices == 0


@pytest.mark.django_db
def test_a_model_that_left_the_list_keeps_its_price(monkeypatch: pytest.MonkeyPatch) -> None:
    serve(monkeypatch, model_of(usd(input_mtok="2")))
    import_prices()
    serve(monkeypatch)

    assert import_prices().new_prices == 0
    assert Price.objects.count() == 1


@pytest.mark.django_db
def test_an_import_leaves_staff_prices_in_force(monkeypatch: pytest.MonkeyPatch) -> None:
    staff = set_price("openai", "m", rates={Meter.INPUT: Decimal(7)}, effective_from=NOW)
    serve(monkeypatch, model_of(usd(input_mtok="2")))
    import_prices(effective_from=LATER)

    price = load_catalog().price_for("openai", "m", at=LATER)

    assert price is not None
    assert price.id == staff.id


# --- set by staff ---------------------------------------------------------------------------------------------------


def contents(price: Price) -> dict[tuple[Service, int], dict[str, Decimal]]:
    return {
        (rate_set.service, rate_set.min_prompt_tokens): {rate.meter: rate.amount for rate in rate_set.rates.all()}
        for rate_set in price.rate_sets.all()
    }


@pytest.mark.django_db
def test_staff_set_a_price() -> None:
    user = get_user_model().objects.create_user("anna")
    version = CatalogVersion.current()

    price = set_price(
        "openai_compatible",
        "llama3.2",
        rates={Meter.INPUT: Decimal("0.05"), Meter.OUTPUT: Decimal("0.1")},
        effective_from=NOW,
        created_by=user,
        note="our own GPU",
    )

    price.refresh_from_db()
    assert (price.source, price.effective_from, price.created_by, price.note) == ("staff", NOW, user, "our own GPU")
    assert (price.match, price.is_free) == (None, False)
    assert contents(price) == {(STANDARD, 0): {"input": Decimal("0.05"), "output": Decimal("0.1")}}
    assert CatalogVersion.current() > version


@pytest.mark.django_db
def test_staff_declare_a_model_free() -> None:
    set_price("openai_compatible", "llama3.2", is_free=True, effective_from=NOW)

    price = load_catalog().price_for("openai_compatible", "llama3.2", at=NOW)

    assert price is not None
    assert cost_of(TokenCounts(10**6, 10**6), price).pico == 0


@pytest.mark.django_db
def test_staff_price_all_names_of_a_form() -> None:
    """Also where it replaces one before, and beside the price of one of them."""
    set_price(
        "openai",
        "ft:gpt-4.1-*",
        rates={Meter.INPUT: Decimal(3)},
        effective_from=NOW,
        per_thousand={"pages": Decimal(1)},
    )
    set_price("openai", "ft:gpt-4.1-*", rates={Meter.INPUT: Decimal(4)}, effective_from=LATER)
    set_price("openai", "ft:gpt-4.1-x:mine", is_free=True, effective_from=NOW)
    catalog = load_catalog()

    def input_rate(model: str, moment: datetime) -> int | None:
        price = catalog.price_for("openai", model, at=moment)
        return None if price is None else cost_of(TokenCounts(10**6), price).pico // 10**12

    assert [input_rate("ft:gpt-4.1-x:acme::id", moment) for moment in (NOW, LATER)] == [3, 4]
    assert [input_rate(model, LATER) for model in ("ft:gpt-4.1-x:mine", "gpt-4.1", "ft:gpt-4o-x")] == [0, None, None]
    later = catalog.price_for("openai", "ft:gpt-4.1-x:acme::id", at=LATER)
    assert later is not None
    assert "pages" in later.rate_sets[0].rates
    assert "ft:gpt-4.1-*" not in [model.id for model in catalog.public_models(at=LATER, default_provider="openai")]


@pytest.mark.django_db
@pytest.mark.parametrize("is_free", [True, False])
def test_a_pattern_has_one_star(is_free: bool) -> None:
    rates = {} if is_free else {Meter.INPUT: Decimal(3)}
    with pytest.raises(PriceRefusedError, match="contains several"):
        set_price("openai", "ft:*-4.1-*", rates=rates, is_free=is_free, effective_from=NOW)
    assert not Price.objects.exists()


@pytest.mark.django_db
def test_a_staff_price_keeps_other_tiers_and_extra_meters_of_the_price_in_force(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tiered = TieredPrices(base=Decimal(2), tiers=[Tier(1000, Decimal(4))])
    prices = ModelPrice(input_mtok=tiered, web_searches_kcount=Decimal(10))
    serve(monkeypatch, model_of(prices, variants=[PriceVariant({"service_tier": "flex"}, usd(input_mtok="1"))]))
    import_prices(effective_from=NOW)

    standard = set_price("openai", "m", rates={Meter.INPUT: Decimal(3)}, effective_from=NOW)
    priority = set_price(
        "openai", "m", rates={Meter.INPUT: Decimal(6)}, effective_from=LATER, service=Service("priority")
    )

    searches = {"web_searches": Decimal(10)}
    flex = {(FLEX, 0): {"input": Decimal(1), **searches}}
    assert contents(standard) == {(STANDARD, 0): {"input": Decimal(3), **searches}, **flex}
    assert contents(priority) == contents(standard) | {(Service("priority"), 0): {"input": Decimal(6), **searches}}


@pytest.mark.django_db
def test_a_price_of_a_speed_and_a_place_stands_beside_the_standard_one() -> None:
    rates = {Meter.INPUT: Decimal(3)}
    set_price("anthropic", "m", rates=rates, effective_from=NOW, service=Service("standard", "standard", "global"))
    fast = set_price("anthropic", "m", rates={Meter.INPUT: Decimal(9)}, effective_from=LATER, service=Service("fast"))
    both = Service(speed="fast", inference_geo="us")
    later = LATER + timedelta(days=1)
    set_price("anthropic", "m", rates={Meter.INPUT: Decimal(8)}, effective_from=later, service=FAST)
    set_price(
        "anthropic", "m", rates={Meter.INPUT: Decimal(10)}, effective_from=later + timedelta(days=1), service=both
    )
    assert contents(fast) == {(STANDARD, 0): {"input": Decimal(3)}, (Service("fast"), 0): {"input": Decimal(9)}}
    price = load_catalog().price_for("anthropic", "m", at=later + timedelta(days=2))
    assert price is not None
    costs = {service: cost_of(TokenCounts(1, 0), price, service).pico for service in (STANDARD, FAST, both)}
    assert costs == {STANDARD: 3_000_000, FAST: 8_000_000, both: 10_000_000}
    assert dearest_pico(price, prompt_tokens_bound=10) == (100_000_000, 0)
    with pytest.raises(PriceMissing) as refusal:
        cost_of(TokenCounts(1, 0), price, PLACED)
    assert refusal.value.meters == ("inference_geo:us",)


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"provider": "nobody"}, "“nobody” is not a provider; choose one of"),
        ({"model": ""}, "not a valid model name"),
        ({"model": " m"}, "not a valid model name"),
        ({"model": "m" * 201}, "not a valid model name"),
        ({"rates": {}}, "Give an input or output token rate"),
        ({"rates": {Meter.CACHE_READ: Decimal(1)}}, "Give an input or output token rate"),
        ({"rates": {Meter.INPUT: Decimal(-1)}}, "negative"),
        ({"rates": {Meter.INPUT: Decimal("NaN")}}, "finite"),
        ({"rates": {Meter.INPUT: Decimal("1e-7")}}, "more than 6 decimals"),
        ({"rates": {Meter.INPUT: Decimal("1e13")}}, "more than the column can hold"),
        ({"rates": {Meter.INPUT: 0.5}}, "takes Decimal"),
        ({"is_free": True}, "either rates or “free”"),
        ({"rates": None, "is_free": True, "service": Service("flex")}, "either rates or “free”"),
        ({"service": Service("flex")}, "Set the standard price first"),
        ({"service": Service("f" * 51)}, "The service tier can have at most 50 characters"),
        ({"service": Service(speed="f" * 21)}, "The speed can have at most 20 characters"),
        ({"service": Service(inference_geo="f" * 21)}, "The inference geo can have at most 20 characters"),
        ({"effective_from": NOW.replace(tzinfo=None)}, "time zone"),
    ],
)
def test_what_makes_no_price_is_refused_and_nothing_is_written(given: dict[str, Any], complaint: str) -> None:
    version = CatalogVersion.current()
    arguments: dict[str, Any] = {"provider": "openai", "model": "m", "effective_from": NOW}
    arguments |= {"rates": {Meter.INPUT: Decimal(1)}} | given

    with pytest.raises(PriceRefusedError, match=complaint):
        set_price(**arguments)

    assert not Price.objects.exists()
    assert CatalogVersion.current() == version


@pytest.mark.django_db
def test_the_same_moment_twice_is_refused() -> None:
    set_price("openai", "m", rates={Meter.INPUT: Decimal(1)}, effective_from=NOW)

    with pytest.raises(PriceRefusedError, match="has a price from 2026-11-20 00:00:00"):
        set_price("openai", "M", rates={Meter.INPUT: Decimal(2)}, effective_from=NOW)

    assert Price.objects.filter(source=PriceSource.STAFF).count() == 1
