from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from llm.enums import Meter
from llm.models import CatalogVersion, ModelRoute, RouteTarget
from llm.prices.staff import set_price
from tests.pages import send

pytestmark = pytest.mark.django_db

LIST = "/admin/llm/modelroute/"
Target = tuple[int | None, int, str, str]


def route_form(*targets: Target, name: str = "smart", is_active: bool = True, stored: int = 0) -> dict[str, str]:
    """targets: (pk or None, position, provider, upstream model)."""
    form = {"name": name, "targets-TOTAL_FORMS": str(len(targets)), "targets-INITIAL_FORMS": str(stored)}
    if is_active:
        form["is_active"] = "on"
    for number, (pk, position, provider, model) in enumerate(targets):
        prefix = f"targets-{number}-"
        form |= {f"{prefix}position": str(position), f"{prefix}provider": provider, f"{prefix}upstream_model": model}
        form |= {f"{prefix}id": str(pk)} if pk else {}
    return form


def make_route(name: str = "smart") -> tuple[ModelRoute, RouteTarget, RouteTarget]:
    route = ModelRoute.objects.create(name=name)
    first = RouteTarget.objects.create(route=route, position=0, provider="openai", upstream_model="large")
    second = RouteTarget.objects.create(route=route, position=1, provider="echo", upstream_model="echo")
    return route, first, second


def chain(route: ModelRoute) -> list[tuple[int, str, str]]:
    return list(route.targets.order_by("position").values_list("position", "provider", "upstream_model"))


def test_a_route_keeps_its_targets_in_their_order(admin_client: Client) -> None:
    admin_client.post(f"{LIST}add/", route_form((None, 5, "echo", "echo"), (None, 2, "openai", " large ")))

    assert chain(ModelRoute.objects.get(name="smart")) == [(0, "openai", "large"), (1, "echo", "echo")]


def test_targets_change_places(admin_client: Client) -> None:
    route, first, second = make_route()
    version = CatalogVersion.current()
    targets = ((first.pk, 1, "openai", "large"), (second.pk, 0, "echo", "echo"))

    send(admin_client, f"{LIST}{route.pk}/change/", route_form(*targets, stored=2))

    assert chain(route) == [(0, "echo", "echo"), (1, "openai", "large")]
    assert CatalogVersion.current() > version


def test_a_target_is_taken_out(admin_client: Client) -> None:
    route, first, second = make_route()
    form = route_form((first.pk, 0, "openai", "large"), (second.pk, 1, "echo", "echo"), stored=2)

    send(admin_client, f"{LIST}{route.pk}/change/", {**form, "targets-0-DELETE": "on"})

    assert chain(route) == [(0, "echo", "echo")]


@pytest.mark.parametrize(
    ("targets", "complaint"),
    [
        ((), "An active route needs at least one target."),
        (((None, 0, "echo", "a"), (None, 1, "echo", "a")), "The same model is listed twice"),
        (((None, 0, "nobody", "a"),), "Select a valid choice."),
        (((None, 0, "echo", ""),), "This field is required."),
    ],
)
def test_a_wrong_route_is_refused(admin_client: Client, targets: tuple[Target, ...], complaint: str) -> None:
    response = admin_client.post(f"{LIST}add/", route_form(*targets))

    assert complaint in response.content.decode()
    assert not ModelRoute.objects.exists()


def test_an_inactive_route_may_be_empty(admin_client: Client) -> None:
    admin_client.post(f"{LIST}add/", route_form(is_active=False))

    assert ModelRoute.objects.get().is_active is False


def test_targets_show_the_price_in_force(admin_client: Client) -> None:
    route, _, _ = make_route()
    rates = {Meter.INPUT: Decimal("2.5"), Meter.OUTPUT: Decimal(10)}
    set_price("openai", "large", rates=rates, effective_from=timezone.now())

    page = admin_client.get(f"{LIST}{route.pk}/change/").content.decode()

    assert "$2.50 in · $10.00 out" in page
    assert "unpriced" in page


@pytest.mark.slow
def test_the_list_takes_as_many_queries_for_50_routes_as_for_one(
    admin_client: Client, django_assert_max_num_queries: Any
) -> None:
    for number in range(50):
        make_route(f"route {number:02}")

    with django_assert_max_num_queries(6):
        assert admin_client.get(LIST).status_code == 200
