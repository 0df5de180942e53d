from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from llm.enums import Meter
from llm.models import CatalogVersion, ModelRoute, RouteTarget
from llm.prices.staff import set_price
from llmproject.providers import InstanceSettings
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


# --- Instances, weights, patterns -------------------------------------------------------------------------------------


@pytest.fixture
def instances(settings: Settings) -> None:
    settings.LLM_PROVIDERS = (
        InstanceSettings("main", "openai", api_keys=("sk-very-secret-key",), weights=(1,)),
        InstanceSettings("claude", "anthropic"),
    )
    settings.LLM_PROVIDER = "main"


@pytest.mark.usefixtures("instances")
def test_targets_are_instances_with_weights(admin_client: Client) -> None:
    page = admin_client.get(f"{LIST}add/").content.decode()
    assert '<option value="main">main</option>' in page
    assert '<option value="claude">claude (not configured)</option>' in page
    assert "sk-very-secret-key" not in page
    form = route_form((None, 0, "main", "gpt-4o"), (None, 1, "claude", "claude-sonnet-5"))
    admin_client.post(f"{LIST}add/", form | {"targets-0-weight": "3", "targets-1-weight": ""})
    route = ModelRoute.objects.get(name="smart")
    assert list(route.targets.values_list("provider", "weight")) == [("main", 3), ("claude", 0)]
    listed = admin_client.get(LIST).content.decode()
    assert "weight 3" in listed
    assert "not configured" in listed


@pytest.mark.usefixtures("instances")
def test_a_stored_provider_says_what_it_means_now(admin_client: Client) -> None:
    route = ModelRoute.objects.create(name="smart")
    for position, provider in enumerate(("openai", "gone")):
        RouteTarget.objects.create(route=route, position=position, provider=provider, upstream_model="gpt-4o")
    page = admin_client.get(f"{LIST}{route.pk}/change/").content.decode()
    assert "openai (now main)" in page
    assert "gone (unknown)" in page


@pytest.mark.parametrize(
    ("name", "model", "complaint"),
    [
        ("a*b*", "gpt-*", "A name may contain one * at most."),
        ("smart", "gpt-*", "A target&#x27;s model may contain * only if the route&#x27;s name does."),
    ],
)
def test_a_wrong_pattern_is_refused(admin_client: Client, name: str, model: str, complaint: str) -> None:
    reply = admin_client.post(f"{LIST}add/", route_form((None, 0, "echo", model), name=name))
    assert complaint in reply.content.decode()
    assert not ModelRoute.objects.exists()
