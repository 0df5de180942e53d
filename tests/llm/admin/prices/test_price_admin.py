from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.utils import timezone

from llm.enums import Meter, PriceSource
from llm.models import Price, Rate, RateSet
from llm.prices.staff import set_price
from llm.types import Service
from tests.llm.admin.factories import make_account, make_key, save, usage_row

pytestmark = pytest.mark.django_db

LIST = "/admin/llm/price/"
ADD = f"{LIST}add/"
FORM = {"provider": "openai", "model": "large", "effective_from": "2026-11-01T00:00"}


def import_price(model: str, *, days_ago: int = 10, rate: str = "2") -> Price:
    since = timezone.now() - timedelta(days=days_ago)
    price = Price.objects.create(provider="openai", model=model, source=PriceSource.IMPORTED, effective_from=since)
    rate_set = RateSet.objects.create(price=price)
    Rate.objects.create(rate_set=rate_set, meter=Meter.INPUT, amount=Decimal(rate))
    return price


def test_a_price_is_set_with_what_was_filled_in(admin_client: Client, admin_user: User) -> None:
    form = {**FORM, "rate_input": "2.50", "rate_output": "10", "rate_cache_read": "0", "note": "as agreed"}

    response = admin_client.post(ADD, form)

    price = Price.objects.get()
    assert response.status_code == 302
    assert (price.provider, price.model, price.source) == ("openai", "large", PriceSource.STAFF)
    assert (price.created_by, price.note) == (admin_user, "as agreed")
    assert price.effective_from == datetime(2026, 11, 1, tzinfo=UTC)
    assert dict(Rate.objects.values_list("meter", "amount")) == {
        "input": Decimal("2.500000"),
        "output": Decimal("10.000000"),
        "cache_read": Decimal("0.000000"),
    }


def test_units_beside_tokens_have_rates_that_carry_over(admin_client: Client) -> None:
    admin_client.post(ADD, {**FORM, "rate_input": "1", "units_web_searches": "25", "units_unreported_tools": "0"})
    later = {**FORM, "effective_from": "2026-11-02T00:00", "rate_input": "2", "units_web_searches": "10"}
    admin_client.post(ADD, later)

    rates = Rate.objects.filter(rate_set__price__effective_from=datetime(2026, 11, 2, tzinfo=UTC))
    assert {rate.meter: (rate.amount, rate.per_units) for rate in rates} == {
        "input": (Decimal(2), 1_000_000),
        "web_searches": (Decimal(10), 1000),
        "unreported_tools": (Decimal(0), 1000),
    }


def test_a_model_is_declared_free(admin_client: Client) -> None:
    admin_client.post(ADD, {**FORM, "provider": "openai_compatible", "is_free": "on"})

    price = Price.objects.get()
    assert (price.is_free, price.rate_sets.count()) == (True, 0)


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({}, "Give an input or output token rate"),
        ({"rate_input": "1e3"}, "is not a plain number"),
        ({"rate_input": "-1"}, "is negative"),
        ({"rate_input": "0.0000001"}, "has more than 6 decimals"),
        ({"rate_input": "1", "is_free": "on"}, "A free model has no rates"),
        ({"units_web_searches": "1", "is_free": "on"}, "A free model has no rates"),
        ({"units_web_searches": "1"}, "Give an input or output token rate"),
        ({"rate_input": "1", "units_web_searches": "-1"}, "is negative"),
        ({"is_free": "on", "service_tier": "flex"}, "A free price is for the standard service"),
        ({"rate_input": "1", "provider": "nobody"}, "Select a valid choice."),
        ({"rate_input": "1", "model": ""}, "This field is required."),
        ({"rate_input": "1", "model": "ft:*-x-*"}, "Only one * may stand for any characters."),
    ],
)
def test_a_wrong_price_is_refused(admin_client: Client, values: dict[str, str], complaint: str) -> None:
    response = admin_client.post(ADD, {**FORM, **values})

    assert complaint in response.content.decode()
    assert not Price.objects.exists()


def test_a_second_price_for_the_same_moment_is_refused(admin_client: Client) -> None:
    admin_client.post(ADD, {**FORM, "rate_input": "1"})

    response = admin_client.post(ADD, {**FORM, "rate_input": "2"})

    assert "already has a price from exactly this time" in response.content.decode()
    assert Price.objects.count() == 1


def test_prices_are_never_edited_or_deleted(admin_client: Client) -> None:
    price = import_price("large")

    assert admin_client.post(f"{LIST}{price.pk}/change/", {**FORM, "rate_input": "9"}).status_code == 403
    assert admin_client.post(f"{LIST}{price.pk}/delete/", {"post": "yes"}).status_code == 403
    assert Rate.objects.get().amount == Decimal(2)


def test_a_price_shows_all_its_rates(admin_client: Client) -> None:
    price = import_price("large")
    big = RateSet.objects.create(price=price, min_prompt_tokens=200_000)
    Rate.objects.create(rate_set=big, meter="input", amount=Decimal("4.5"))
    Rate.objects.create(rate_set=big, meter="web_searches", amount=Decimal(10), per_units=1000)

    page = admin_client.get(f"{LIST}{price.pk}/change/").content.decode()

    assert "requests of 200,000 prompt tokens and more" in page
    for text in ("$2.00", "$4.50", "web searches", "per thousand units"):
        assert text in page


def test_standing_goes_by_source_and_time(admin_client: Client) -> None:
    import_price("large", days_ago=20)
    import_price("large", days_ago=10)
    import_price("small", days_ago=10)
    now = timezone.now()
    staffs = set_price("openai", "large", rates={Meter.INPUT: Decimal(1)}, effective_from=now - timedelta(days=15))
    later = set_price("openai", "small", rates={Meter.INPUT: Decimal(1)}, effective_from=now + timedelta(days=1))

    found = {
        standing: {
            (price.model, price.source)
            for price in admin_client.get(LIST, {"standing": standing}).context["cl"].result_list
        }
        for standing in ("in_force", "later", "superseded")
    }

    assert found == {
        "in_force": {(staffs.model, "staff"), ("small", "imported")},
        "later": {(later.model, "staff")},
        "superseded": {("large", "imported")},
    }


def test_unpriced_models_lead_to_the_filled_form(admin_client: Client) -> None:
    key = make_key(make_account())
    save(
        *(usage_row(key, cost=None, provider="openai_compatible", upstream_model="llama&co") for _ in range(3)),
        usage_row(key, cost=None, upstream_model="large"),
    )
    import_price("large")

    response = admin_client.get(f"{LIST}unpriced/")

    assert [(entry.model, entry.calls) for entry in response.context["unpriced"]] == [("llama&co", 3)]
    assert [entry.model for entry, _ in response.context["priced_since"]] == ["large"]
    link = f"{ADD}?provider=openai_compatible&amp;model=llama%26co"
    assert link in response.content.decode()
    form = admin_client.get(link.replace("&amp;", "&")).context["adminform"].form
    assert (form["provider"].value(), form["model"].value()) == ("openai_compatible", "llama&co")


def test_unpriced_models_take_the_right_to_see_usage(client: Client) -> None:
    user = User.objects.create_user("helper", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="view_price"))
    client.force_login(user)

    assert client.get(LIST).status_code == 200
    assert client.get(f"{LIST}unpriced/").status_code == 403
    assert client.get(ADD).status_code == 403


def test_the_list_takes_as_many_queries_for_50_prices_as_for_one(
    admin_client: Client, django_assert_max_num_queries: Any
) -> None:
    for number in range(50):
        import_price(f"model {number:02}")

    with django_assert_max_num_queries(8):
        assert admin_client.get(LIST).status_code == 200


SERVICES = ({"service_tier": "priority"}, {"speed": "fast"}, {"inference_geo": "us"})


@pytest.mark.parametrize("words", SERVICES)
def test_a_price_for_a_tier_a_speed_or_a_place_stands_beside_the_standard_one(
    admin_client: Client, words: dict[str, str]
) -> None:
    admin_client.post(ADD, {**FORM, "rate_input": "1", "rate_output": "2"})

    response = admin_client.post(
        ADD, {**FORM, **words, "effective_from": "2026-11-02T00:00", "rate_input": "3", "rate_output": "4"}
    )

    assert response.status_code == 302
    price = Price.objects.get(effective_from=datetime(2026, 11, 2, tzinfo=UTC))
    found = {
        rate_set.service: {rate.meter: rate.amount for rate in rate_set.rates.all()}
        for rate_set in price.rate_sets.all()
    }
    assert found == {
        Service(): {"input": Decimal(1), "output": Decimal(2)},
        Service(**words): {"input": Decimal(3), "output": Decimal(4)},
    }


@pytest.mark.parametrize("words", SERVICES)
def test_a_price_of_a_service_without_a_standard_one_or_of_a_free_model_is_refused(
    admin_client: Client, words: dict[str, str]
) -> None:
    first = admin_client.post(ADD, {**FORM, **words, "rate_input": "3"}, follow=True)
    free = admin_client.post(ADD, {**FORM, **words, "is_free": "on"})

    assert "Set the standard price first" in first.content.decode()
    assert "A free price is for the standard service" in free.content.decode()
    assert not Price.objects.exists()


def test_a_providers_word_for_its_standard_service_is_the_standard(admin_client: Client) -> None:
    admin_client.post(ADD, {**FORM, "service_tier": "default", "rate_input": "3"})

    assert RateSet.objects.get().service == Service()
