"""Staff tokens: kept as digests, narrowed by scopes, and refused without a query where nobody made them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client, override_settings
from django.test.utils import CaptureQueriesContext
from django.urls import get_resolver, reverse
from django.utils import timezone
from rest_framework.authtoken.models import Token

from billing.enums import TokenScope
from billing.models import ExportJob, PlainTokenGrace, StaffToken
from billing.staff.plain_tokens import forget_plain_tokens
from billing.staff.tokens import create_token, is_plausible, revoke_token
from llm.admin.attention import attention_for
from tests.billing.api.asking import API, Asker, make_staff, staff_asker, token_of
from tests.pages import send

pytestmark = pytest.mark.django_db
INVENTED = f"llmt_{'a' * 32}{'0' * 16}"


@pytest.fixture(autouse=True)
def _forgetful() -> None:
    forget_plain_tokens()


def in_use_since(moment: datetime, user: User) -> str:
    """A plain token as an upgrade of that moment found it."""
    token = Token.objects.create(user=user)
    Token.objects.filter(pk=token.pk).update(created=moment - timedelta(days=100))
    PlainTokenGrace.objects.get_or_create(defaults={"recorded_at": moment})
    return str(token.key)


@pytest.mark.slow
def test_a_stored_token_is_no_credential() -> None:
    text = token_of(make_staff("view_account"))

    with connection.cursor() as cursor:
        cursor.execute("SELECT * FROM billing_stafftoken")
        stored = [bytes(cell) if isinstance(cell, memoryview) else cell for cell in cursor.fetchone()]

    assert text not in str(stored)
    assert text[len("llmt_") : -4] not in str(stored)
    for cell in stored:
        assert Asker(cell.hex() if isinstance(cell, bytes) else str(cell)).get("accounts/").status_code == 401


def test_a_dump_taken_to_another_pepper_holds_no_token() -> None:
    text = token_of(make_staff("view_account"))

    with override_settings(LLM_KEY_PEPPER="another pepper"):
        assert not is_plausible(text)
        assert Asker(text).get("accounts/").status_code == 401


def test_only_tokens_that_we_made_are_plausible() -> None:
    text = token_of(make_staff())

    assert is_plausible(text)
    for other in (
        "",
        INVENTED,
        text[:-1],
        f"{text}0",
        text.upper(),
        f" {text}",
        f"{text}\n",
        "0" * 40,
        f"llm_{'a' * 38}",
    ):
        assert not is_plausible(other), other


def test_an_invented_token_costs_no_query() -> None:
    make_staff("view_account")
    Asker("0" * 40).get("accounts/")

    with CaptureQueriesContext(
        connection,
    ) as queries:
        for text in (INVENTED, "nonsense", "0" * 40, "f" * 40):
            assert Asker(text).get("accounts/").status_code == 401

    assert [query["sql"] for query in queries] == []


def test_a_token_that_reads_starts_nothing() -> None:
    user = make_staff("view_exportjob", "run_export")
    reader, exporter = Asker(token_of(user, TokenScope.READ)), Asker(token_of(user, TokenScope.EXPORT))

    refused = reader.post("exports/", {"period": "2026-10"})
    assert (refused.status_code, refused.json()["detail"]) == (403, "This needs a token with the scope “export”.")
    assert ExportJob.objects.count() == 0
    assert exporter.post("exports/", {"period": "2026-10"}).status_code == 201
    assert exporter.refusal("exports/", status=403) == "This needs a token with the scope “read”."
    assert reader.get("exports/").status_code == 200


def test_a_scope_grants_nothing_that_the_user_may_not() -> None:
    asker = staff_asker("view_exportjob")

    refused = asker.post("exports/", {"period": "2026-10"})

    assert (refused.status_code, refused.json()["detail"]) == (403, "This needs the permission billing.run_export.")
    assert ExportJob.objects.count() == 0


def test_whatever_the_api_starts_has_a_scope_of_its_own() -> None:
    needed: set[str] = set()
    for pattern in get_resolver("billing.api.urls").url_patterns:
        view: Any = getattr(pattern.callback, "cls", None)
        served = {name.upper() for name in view.http_method_names if hasattr(view, name)} - {"GET", "HEAD", "OPTIONS"}
        assert served <= set(view.scopes), view
        needed |= {view.scopes[method] for method in served}

    assert needed == set(TokenScope) - {TokenScope.READ}


def test_revoked_and_expired_tokens_say_so() -> None:
    user = make_staff("view_account")
    token, text = create_token(user, name="a")
    _, short = create_token(user, name="b", days=1)

    assert revoke_token(token)
    assert not revoke_token(token)
    assert Asker(text).refusal("accounts/", status=401) == "This token was revoked. Ask for a new one."
    with time_machine.travel(datetime.now(UTC) + timedelta(days=1, seconds=1)):
        assert Asker(short).refusal("accounts/", status=401) == "This token has expired. Ask for a new one."


def test_plain_tokens_work_for_30_days_after_the_upgrade_with_a_warning() -> None:
    upgrade = datetime(2026, 12, 1, 12, tzinfo=UTC)
    text = in_use_since(upgrade, make_staff("view_account"))

    with time_machine.travel(upgrade + timedelta(days=30, seconds=-1), tick=False):
        answer = Asker(text).get("accounts/")
    assert answer.status_code == 200
    assert answer["Deprecation"] == "@1796126400"
    assert answer["Sunset"] == "Thu, 31 Dec 2026 12:00:00 GMT"
    assert answer["Warning"] == (
        '299 - "This token expires on 2026-12-31. Create a new one with manage.py create_api_token."'
    )

    forget_plain_tokens()
    with time_machine.travel(upgrade + timedelta(days=30), tick=False):
        assert Asker(text).get("accounts/").status_code == 401


def test_a_process_that_runs_on_ends_them_at_the_minute() -> None:
    upgrade = timezone.now() - timedelta(days=30) + timedelta(seconds=5)
    text = in_use_since(upgrade, make_staff("view_account"))
    assert Asker(text).get("accounts/").status_code == 200

    with time_machine.travel(timezone.now() + timedelta(seconds=6)):
        assert Asker(text).get("accounts/").status_code == 401


def test_new_tokens_bring_no_warning() -> None:
    answer = staff_asker("view_account").get("accounts/")

    assert answer.status_code == 200
    assert not {"Deprecation", "Sunset", "Warning"} & set(answer.headers)


def test_a_plain_token_made_since_the_upgrade_or_without_one_is_refused() -> None:
    user = make_staff("view_account")
    key = Token.objects.create(user=user).key
    assert Asker(key).get("accounts/").status_code == 401

    PlainTokenGrace.objects.create(recorded_at=timezone.now() - timedelta(minutes=1))
    forget_plain_tokens()
    assert Asker(key).get("accounts/").status_code == 401


@pytest.mark.parametrize("change", ["inactive", "deleted"])
def test_a_plain_token_ends_with_its_user_or_when_it_is_deleted(change: str) -> None:
    user = make_staff("view_account")
    text = in_use_since(timezone.now(), user)
    assert Asker(text).get("accounts/").status_code == 200

    if change == "inactive":
        User.objects.update(is_active=False)
    else:
        Token.objects.all().delete()
    assert Asker(text).get("accounts/").status_code == 401


def test_staff_are_told_of_plain_tokens_while_they_work() -> None:
    user = make_staff("view_stafftoken")
    now = datetime(2026, 12, 10, tzinfo=UTC)
    assert attention_for(user, now) == ()

    in_use_since(datetime(2026, 12, 1, tzinfo=UTC), user)

    (told,) = attention_for(User.objects.get(), now)
    assert told.text == "1 API token of the former kind ends on 2026-12-31"
    assert attention_for(User.objects.get(), datetime(2027, 1, 1, tzinfo=UTC)) == ()


def test_a_token_is_revoked_in_the_admin_and_never_shown(admin_client: Client) -> None:
    text = token_of(make_staff("view_account"))
    token = StaffToken.objects.get()
    page, listed = (
        admin_client.get(reverse("admin:billing_stafftoken_change", args=(token.pk,))).content.decode(),
        admin_client.get(reverse("admin:billing_stafftoken_changelist")).content.decode(),
    )
    assert token.masked in page
    assert token.masked in listed
    assert not re.search(rf"{text}|{bytes(token.digest).hex()}", page + listed)

    url = reverse("admin:billing_stafftoken_action", args=(token.pk, "revoke"))
    assert Asker(text).get("accounts/").status_code == 200
    assert admin_client.get(url).status_code == 200
    assert Asker(text).get("accounts/").status_code == 200
    assert send(admin_client, url).status_code == 302
    assert Asker(text).get("accounts/").status_code == 401


def test_who_may_only_look_revokes_nothing() -> None:
    text = token_of(make_staff("view_account"))
    token = StaffToken.objects.get()
    client = Client()
    client.force_login(make_staff("view_stafftoken", name="looker"))

    refused = client.post(reverse("admin:billing_stafftoken_action", args=(token.pk, "revoke")))

    assert refused.status_code == 403
    assert Client().get(f"{API}accounts/", headers={"authorization": f"Token {text}"}).status_code == 200
    assert client.get("/admin/authtoken/tokenproxy/").status_code == 404


def test_a_user_with_tokens_can_be_deleted_in_the_admin(admin_client: Client) -> None:
    user = make_staff("view_account")
    token_of(user)

    answer = admin_client.post(reverse("admin:auth_user_delete", args=(user.pk,)), {"post": "yes"})

    assert answer.status_code == 302
    assert StaffToken.objects.count() == 0
