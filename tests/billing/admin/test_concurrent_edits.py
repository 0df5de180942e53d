"""Several people at the same object of the admin, of each kind that can be edited or added: llm's and ours."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import Group, User
from django.db import connections, models, transaction
from django.test import Client

from billing.enums import InvoiceState
from billing.models import BillingProfile, FormerPlan, Plan, PlanRate, PlanVersion
from billing.plans import add_version
from llm.admin.concurrent_edits import ConcurrentEdits
from llm.models import Account, ApiKey, Limit, ModelRoute, Price, RouteTarget
from tests.billing.factories import make_account, make_invoice, make_profile
from tests.databases import only_on_postgresql
from tests.llm.admin.factories import make_key, make_limit
from tests.pages import form_on, text_of

IN_BETWEEN = " changed after you opened this page. Nothing was saved: "


def make_route() -> ModelRoute:
    route = ModelRoute.objects.create(name="smart")
    RouteTarget.objects.create(route=route, position=0, provider="openai", upstream_model="large")
    return route


def make_plan_version() -> PlanVersion:
    rates = [
        PlanRate(model_pattern="gpt-*", meter=meter, price_per_million=Decimal(3)) for meter in ("input", "output")
    ]
    return add_version(Plan.objects.create(name="Team"), effective_from=date(2026, 1, 1), rates=rates)


def make_group() -> Group:
    return Group.objects.create(name="Reviewers")


def make_user() -> User:
    return User.objects.create_user("ada", first_name="Ada", is_staff=True)


@dataclass(frozen=True)
class Edited:
    """meanwhile: somebody else's change. mine: what an older page sends. told: how the refusal names the change."""

    make: Callable[[], models.Model]
    meanwhile: Callable[[Any], object]
    mine: dict[str, Any]
    told: str


def change(**values: Any) -> Callable[[models.Model], object]:
    return lambda row: type(row)._base_manager.filter(pk=row.pk).update(**values)


EDITED = {
    "account": Edited(make_account, change(name="Theirs"), {"alert_email": "me@example.com"}, "“Name” changed"),
    "key": Edited(
        lambda: make_key(make_account()),
        change(expires_at=datetime(2030, 1, 1, tzinfo=UTC)),
        {"name": "mine"},
        "“Expires” changed",
    ),
    "key's models": Edited(
        lambda: make_key(make_account()),
        change(allowed_models=["small"]),
        {"name": "mine"},
        "“Allowed models” changed",
    ),
    "limit": Edited(lambda: make_limit(make_account()), change(amount=77), {"soft_percent": "5"}, "“Amount” changed"),
    "route": Edited(make_route, change(is_active=False), {"name": "mine"}, "“Is active” changed"),
    "route's targets": Edited(
        make_route,
        lambda route: route.targets.update(upstream_model="theirs"),
        {"name": "mine"},
        "“Targets” changed",
    ),
    "route's new target": Edited(
        make_route,
        lambda route: RouteTarget.objects.create(route=route, position=1, provider="echo", upstream_model="theirs"),
        {"name": "mine"},
        "“Targets” changed",
    ),
    "plan": Edited(lambda: Plan.objects.create(name="Team"), change(name="Theirs"), {"name": "mine"}, "“Name” changed"),
    "version": Edited(make_plan_version, change(flat_fee=Decimal(7)), {"markup_percent": "9"}, "“Flat fee” changed"),
    "version's prices": Edited(
        make_plan_version,
        lambda version: version.rates.update(price_per_million=Decimal(4)),
        {"markup_percent": "9"},
        "“Fixed prices” changed",
    ),
    "profile": Edited(
        make_profile,
        change(legal_name="Theirs", tax_percent=Decimal(19)),
        {"payment_days": "9"},
        "“Legal name” and “Tax percent” changed",
    ),
    "group": Edited(make_group, change(name="Theirs"), {"name": "mine"}, "“Name” changed"),
    "user": Edited(make_user, change(is_active=False), {"first_name": "mine"}, "“Active” changed"),
    "user's groups": Edited(
        make_user, lambda user: user.groups.add(make_group()), {"first_name": "mine"}, "“Groups” changed"
    ),
}


def page_of(row: models.Model) -> str:
    return f"/admin/{row._meta.app_label}/{row._meta.model_name}/{row.pk}/change/"


def stored(row: models.Model) -> list[Any]:
    rows = [type(row)._base_manager.filter(pk=row.pk)]
    rows += [getattr(row, name).order_by("pk") for name in ("targets", "rates", "groups") if hasattr(row, name)]
    return [list(each.values()) for each in rows]


@pytest.mark.django_db
@pytest.mark.parametrize("kind", EDITED)
def test_an_older_page_undoes_nobodys_change(admin_client: Client, kind: str) -> None:
    edited = EDITED[kind]
    row = edited.make()
    form = form_on(admin_client, page_of(row))
    edited.meanwhile(row)
    before = stored(row)

    [(name, typed)] = edited.mine.items()
    answer = text_of(admin_client.post(page_of(row), {**form, name: typed}))

    assert edited.told in answer
    assert IN_BETWEEN in answer
    assert f'<a href="{page_of(row)}">reload the page</a>' in answer
    assert typed in answer
    assert stored(row) == before

    # Sent again it is as outdated as before; loaded again it is not.
    assert edited.told in text_of(admin_client.post(page_of(row), {**form, name: typed}))
    assert admin_client.post(page_of(row), {**form_on(admin_client, page_of(row)), name: typed}).status_code == 302
    assert stored(row) != before


@pytest.mark.django_db
@pytest.mark.parametrize("kind", EDITED)
def test_a_page_that_nobody_changed_under_is_saved(admin_client: Client, kind: str) -> None:
    row = EDITED[kind].make()
    before = stored(row)

    sent = {**form_on(admin_client, page_of(row)), **EDITED[kind].mine}
    assert admin_client.post(page_of(row), sent).status_code == 302
    assert stored(row) != before


@pytest.mark.django_db
@pytest.mark.parametrize("version", [None, "", "x", "1 name=zz", "9" * 40, "1764500000000"])
def test_a_form_that_does_not_say_what_it_showed_is_refused(admin_client: Client, version: str | None) -> None:
    account = make_account()
    form = {**form_on(admin_client, page_of(account)), "name": "Mine"}
    sent = {name: value for name, value in form.items() if name != "form_version"}

    answer = admin_client.post(page_of(account), sent if version is None else {**sent, "form_version": version})

    assert answer.status_code == 200
    assert "Nothing was saved: " in text_of(answer)
    account.refresh_from_db()
    assert account.name == "Acme"


@pytest.mark.django_db
def test_the_refusal_says_who_it_was(admin_client: Client) -> None:
    other = Client()
    other.force_login(User.objects.create_superuser("abel"))
    account = make_account()
    form = form_on(admin_client, page_of(account))
    other.post(page_of(account), {**form_on(other, page_of(account)), "name": "Theirs"})

    answer = text_of(admin_client.post(page_of(account), {**form, "alert_email": "me@example.com"}))

    assert "abel changed “Name” after you opened this page." in answer


@pytest.mark.django_db
def test_the_same_form_sent_twice_is_no_conflict(admin_client: Client) -> None:
    account = make_account()
    form = {**form_on(admin_client, page_of(account)), "name": "Mine"}

    assert [admin_client.post(page_of(account), form).status_code for _ in range(2)] == [302, 302]


@pytest.mark.django_db
def test_a_plan_that_was_changed_meanwhile_is_not_made_retroactive(admin_client: Client) -> None:
    """An older page still shows the month of the plan before; sent, it must not count as asked for."""
    profile = make_profile(plan_from=date(2026, 1, 1))
    for name in ("B", "C"):
        add_version(Plan.objects.create(name=name), effective_from=date(2025, 1, 1))
    b, c = Plan.objects.get(name="B"), Plan.objects.get(name="C")
    older = form_on(admin_client, page_of(profile))
    newer = form_on(admin_client, page_of(profile))
    assert admin_client.post(page_of(profile), {**newer, "plan": b.pk}).status_code == 302
    profile.refresh_from_db()
    since, kept = profile.plan_from, list(FormerPlan.objects.values())
    assert (profile.plan, len(kept)) == (b, 1)

    answer = text_of(admin_client.post(page_of(profile), {**older, "plan": c.pk}))

    assert "You changed “Plan” and “Plan in force from” after you opened this page." in answer
    profile.refresh_from_db()
    assert (profile.plan, profile.plan_from, list(FormerPlan.objects.values())) == (b, since, kept)


@pytest.mark.django_db
def test_a_version_that_was_billed_meanwhile_is_refused_with_the_reason(admin_client: Client) -> None:
    version = make_plan_version()
    form = form_on(admin_client, page_of(version))
    make_invoice(make_profile(plan=version.plan), state=InvoiceState.ISSUED)

    changed = {"effective_from": "2026-09-01", "markup_percent": "9", "rates-0-price_per_million": "5.25"}
    answer = text_of(admin_client.post(page_of(version), {**form, **changed}))

    assert "“Team from 2026-01” is used by invoices and can't be changed: add a version from a later month." in answer
    assert 'value="9"' in answer
    assert 'value="5.25"' in answer
    version.refresh_from_db()
    assert (version.effective_from, version.markup_percent) == (date(2026, 1, 1), Decimal(0))


# --- Added at once ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Added:
    """prepare: what the new row needs; says the values of its form."""

    model: type[models.Model]
    prepare: Callable[[], dict[str, Any]]


def _version_form() -> dict[str, Any]:
    return {"plan": Plan.objects.create(name="Team").pk, "effective_from": "2030-02-01"}


def _route_form() -> dict[str, Any]:
    target = {"targets-0-position": "0", "targets-0-provider": "echo", "targets-0-upstream_model": "echo"}
    return {"name": "smart", **target}


def _limit_form() -> dict[str, Any]:
    return {"account": make_account().pk, "metric": "tokens", "per": "day", "amount": "100"}


def _profile_form() -> dict[str, Any]:
    plan = make_plan_version().plan
    return {"account": make_account().pk, "legal_name": "Acme", "plan": plan.pk}


ADDED = {
    "account": Added(Account, lambda: {"name": "Acme"}),
    "route": Added(ModelRoute, _route_form),
    "limit": Added(Limit, _limit_form),
    "price": Added(Price, lambda: {"provider": "openai", "model": "gpt-x", "rate_input": "1"}),
    "plan": Added(Plan, lambda: {"name": "Team"}),
    "version": Added(PlanVersion, _version_form),
    "profile": Added(BillingProfile, _profile_form),
    "group": Added(Group, lambda: {"name": "Reviewers"}),
    "user": Added(User, lambda: {"username": "ada", "usable_password": "false"}),
}


def add_url(model: type[models.Model]) -> str:
    return f"/admin/{model._meta.app_label}/{model._meta.model_name}/add/"


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("kind", ADDED)
def test_what_two_people_add_at_once_is_added_once(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each form is right when it is checked. On SQLite the second is only checked once the first is stored."""
    added = ADDED[kind]
    people = [User.objects.create_superuser(name) for name in ("abel", "cleo")]
    before = added.model._base_manager.count()
    values = added.prepare()
    model_admin, both_are_checked = admin.site._registry[added.model], threading.Barrier(2)
    save_model = model_admin.save_model

    def wait_and_save(*args: Any, **named: Any) -> None:
        with suppress(threading.BrokenBarrierError):
            both_are_checked.wait(1)
        save_model(*args, **named)

    monkeypatch.setattr(model_admin, "save_model", wait_and_save)
    forms = []
    for person in people:
        client = Client()
        client.force_login(person)
        forms.append((client, {**form_on(client, add_url(added.model)), **values}))

    def add(client: Client, form: dict[str, Any]) -> Any:
        try:
            return client.post(add_url(added.model), form)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(2) as pool:
        answers = [each.result(30) for each in [pool.submit(add, *form) for form in forms]]

    assert sorted(answer.status_code for answer in answers) == [200, 302]
    refused = next(text_of(answer) for answer in answers if answer.status_code == 200)
    assert "already" in refused
    assert next(str(value) for value in values.values()) in refused
    assert added.model._base_manager.count() == before + 1


@pytest.mark.django_db
@pytest.mark.parametrize("kind", ["account", "route", "plan", "version", "profile", "group", "user"])
def test_a_row_that_was_added_since_the_check_is_named(
    admin_client: Client, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    added = ADDED[kind]
    form = {**form_on(admin_client, add_url(added.model)), **added.prepare()}
    assert admin_client.post(add_url(added.model), form).status_code == 302
    count = added.model._base_manager.count()
    for check in ("validate_unique", "validate_constraints"):
        monkeypatch.setattr(models.Model, check, lambda self, exclude=None: None)
    monkeypatch.setattr("django.contrib.auth.forms.UserCreationForm.clean_username", lambda self: "ada", raising=False)

    answer = admin_client.post(add_url(added.model), form)

    name = added.model._meta.verbose_name
    assert answer.status_code == 200
    assert f"Another {name} with these values already exists: someone else added it in the meantime." in text_of(answer)
    assert added.model._base_manager.count() == count


@pytest.mark.django_db(transaction=True)
def test_two_pages_saved_at_once_are_saved_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    account = make_account()
    model_admin, both_are_checked = admin.site._registry[Account], threading.Barrier(2)
    save_model = model_admin.save_model

    def wait_and_save(*args: Any, **named: Any) -> None:
        with suppress(threading.BrokenBarrierError):
            both_are_checked.wait(0.5)
        save_model(*args, **named)

    monkeypatch.setattr(model_admin, "save_model", wait_and_save)
    sent = []
    for name, typed in (("abel", {"name": "Abel's"}), ("cleo", {"alert_email": "cleo@example.com"})):
        client = Client()
        client.force_login(User.objects.create_superuser(name))
        sent.append((client, {**form_on(client, page_of(account)), **typed}))

    def save(client: Client, form: dict[str, Any]) -> Any:
        try:
            return client.post(page_of(account), form)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(2) as pool:
        answers = [each.result(30) for each in [pool.submit(save, *each) for each in sent]]

    assert sorted(answer.status_code for answer in answers) == [200, 302]
    account.refresh_from_db()
    assert (account.name, account.alert_email) in [("Abel's", ""), ("Acme", "cleo@example.com")]


# --- All of them ------------------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_every_form_of_the_admin_notices_others(rf: Any) -> None:
    request = rf.get("/")
    request.user = User.objects.create_superuser("root")
    editable = {model: each for model, each in admin.site._registry.items() if each.has_change_permission(request)}

    assert {model for model, each in editable.items() if not isinstance(each, ConcurrentEdits)} == set()
    # A list whose rows are edited in place has no version of each.
    assert {model for model, each in admin.site._registry.items() if each.list_editable} == set()
    assert {Account, ApiKey, Limit, ModelRoute, Plan, PlanVersion, BillingProfile, User, Group} <= set(editable)


@pytest.mark.django_db
def test_a_new_password_reactivates_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    ada = User.objects.create_user("ada", password="an old secret", is_staff=True)
    client = Client()
    client.force_login(ada)
    hashed = User.set_password

    def deactivated_meanwhile(self: User, password: str) -> None:
        User.objects.filter(pk=self.pk).update(is_active=False)
        hashed(self, password)

    monkeypatch.setattr(User, "set_password", deactivated_meanwhile)
    new = {"old_password": "an old secret", "new_password1": "quite a new one", "new_password2": "quite a new one"}
    client.post("/admin/password_change/", new)

    ada.refresh_from_db()
    assert (ada.is_active, ada.check_password("quite a new one")) == (False, True)


@pytest.mark.django_db(transaction=True)
@only_on_postgresql("SQLite's one lock keeps the page itself waiting")
def test_a_row_that_someone_holds_is_a_sentence(admin_client: Client) -> None:
    account = make_account()
    form = {**form_on(admin_client, page_of(account)), "name": "Mine"}
    is_held, is_told = threading.Event(), threading.Event()

    def hold() -> None:
        try:
            with transaction.atomic():
                Account.objects.select_for_update().get(pk=account.pk)
                is_held.set()
                is_told.wait(30)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as pool, connections["default"].cursor() as cursor:
        holding = pool.submit(hold)
        is_held.wait(10)
        cursor.execute("SET lock_timeout = '200ms'")
        try:
            answer = text_of(admin_client.post(page_of(account), form))
        finally:
            cursor.execute("RESET lock_timeout")
            is_told.set()
        holding.result(30)

    assert "Someone else is changing this right now. Nothing was saved: try again in a moment." in answer
    assert 'value="Mine"' in answer
