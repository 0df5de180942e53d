from __future__ import annotations

from datetime import timedelta
from uuid import uuid4

import pytest
from django.contrib.auth.models import User
from django.core.cache import cache
from django.test import Client
from django.utils import timezone
from django.utils.html import escape

from llm.admin.attention import attention_for
from llm.models import BooksCheck, Process, RefusedWrite, ScheduledTask
from tests.llm.admin.factories import (
    disputed_row,
    lost_row,
    make_account,
    make_key,
    make_limit,
    make_message,
    save,
    staff_with,
    usage_row,
)

pytestmark = pytest.mark.django_db

HOURS = timedelta(hours=1)


@pytest.fixture(autouse=True)
def _no_processes(db: None) -> None:
    """Gateways of other tests may be running, and say which targets they skip."""
    Process.objects.all().delete()


def texts(user: User) -> list[str]:
    return [entry.text for entry in attention_for(user, timezone.now())]


def make_check(*, ago: timedelta, problems: int = 0) -> BooksCheck:
    then = timezone.now() - ago
    return BooksCheck.objects.create(started_at=then, ended_at=then, rows=1, windows=1, problems=problems)


def make_everything() -> None:
    now = timezone.now()
    account = make_account()
    key = make_key(account)
    save(*(make(key, opened_at=now) for make in (lost_row, lost_row, disputed_row)))
    save(*(usage_row(key, opened_at=now, cost=None, model="alias", upstream_model="new") for _ in range(2)))
    ScheduledTask.objects.create(name="llm.tasks.reap_lost_calls", started_at=now - HOURS)
    RefusedWrite.objects.create(digest="a", usage_id=uuid4(), reason="late", document={})
    make_check(ago=HOURS, problems=3)
    make_message(account, given_up_at=now)
    make_limit(account, used=900)


def test_nothing_wrong_is_nothing_said(admin_user: User, admin_client: Client) -> None:
    account = make_account()
    save(usage_row(make_key(account), opened_at=timezone.now() - 72 * HOURS))
    make_check(ago=47 * HOURS)
    make_message(account)
    make_limit(account, used=799)

    cache.clear()
    assert texts(admin_user) == []
    assert "Needs attention" not in admin_client.get("/admin/").content.decode()


def test_all_that_is_wrong_is_said_with_links(admin_user: User, admin_client: Client) -> None:
    make_everything()

    cache.clear()
    page = admin_client.get("/admin/").content.decode()

    began = ScheduledTask.objects.get().started_at.strftime("%Y-%m-%d %H:%M")
    assert texts(admin_user) == [
        "3 lost or disputed calls wait for a decision",
        "2 calls have no price: new (openai)",
        "The books rejected 1 write in the last 7 days",
        "The last ledger audit found 3 problems",
        f"No background task has started since {began} UTC: check that a Celery worker and beat are running",
        "1 message was not delivered",
        "1 limit is at 80 % or more",
    ]
    assert "The last ledger audit found 3 problems." in page
    for entry in attention_for(admin_user, timezone.now()):
        assert f'href="{escape(entry.url)}"' in page
        assert admin_client.get(entry.url).status_code == 200


def test_limits_that_are_used_up_are_named(admin_user: User) -> None:
    account = make_account()
    make_limit(account, used=900)
    make_limit(account, per="day", used=600, held=400)
    make_limit(account, metric="requests", per="total", used=1000)

    assert texts(admin_user) == ["3 limits are at 80 % or more, 2 used up"]


def test_refusals_of_long_ago_are_no_news(admin_user: User) -> None:
    RefusedWrite.objects.create(digest="a", usage_id=uuid4(), reason="late", document={})
    RefusedWrite.objects.update(recorded_at=timezone.now() - timedelta(days=8))

    assert texts(admin_user) == []


def test_books_that_nobody_checks(admin_user: User) -> None:
    key = make_key(make_account())
    save(usage_row(key, opened_at=timezone.now() - 47 * HOURS))
    assert texts(admin_user) == []

    save(usage_row(key, opened_at=timezone.now() - 49 * HOURS))
    unchecked = ["No ledger audit has run in the last 48 hours"]
    assert texts(admin_user) == unchecked

    make_check(ago=49 * HOURS)
    assert texts(admin_user) == unchecked

    make_check(ago=HOURS)
    assert texts(admin_user) == []


def test_a_background_task_that_never_finishes_is_named(admin_user: User, admin_client: Client) -> None:
    ScheduledTask.objects.create(name="llm.tasks.reap_lost_calls", started_at=timezone.now(), attempts=2)
    stuck = ScheduledTask.objects.create(name="billing.tasks.close_due_months", started_at=timezone.now(), attempts=3)

    assert texts(admin_user) == ["Started 3 times or more without finishing: close_due_months. See the worker's log"]
    [attention] = attention_for(admin_user, timezone.now())
    assert stuck.name in admin_client.get(attention.url).content.decode()


def test_targets_that_are_skipped_are_summed_over_live_processes(admin_user: User) -> None:
    now = timezone.now()
    silent, ended = {"seen_at": now - HOURS}, {"seen_at": now, "ended_at": now}
    for number, times in enumerate(({"seen_at": now}, {"seen_at": now}, silent, ended)):
        lines = "claude: claude-sonnet-5\nmain: gpt-4o" if number == 0 else "claude: claude-sonnet-5"
        Process.objects.create(id=uuid4(), host="a", pid=number, started_at=now, skipped_targets=lines, **times)
    expected = "claude: claude-sonnet-5 (2 processes), main: gpt-4o (1 process)"
    assert texts(admin_user) == [f"Skipped after repeated failures: {expected}"]


def test_counts_are_bounded(admin_user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm.admin.attention.MAX_COUNTED", 2)
    account = make_account()
    for number in range(4):
        make_message(account, f"cause {number}", given_up_at=timezone.now())

    assert texts(admin_user) == ["more than 2 messages were not delivered"]


@pytest.mark.parametrize(
    ("permission", "text"),
    [
        ("view_usage", "3 lost or disputed calls"),
        ("view_refusedwrite", "The books rejected"),
        ("view_bookscheck", "The last ledger audit"),
        ("view_outbox", "1 message"),
        ("view_limit", "1 limit"),
        ("view_scheduledtask", "No background task"),
    ],
)
def test_people_are_told_what_they_may_see(permission: str, text: str) -> None:
    make_everything()
    staff_with(permission)

    (told,) = texts(User.objects.get())

    assert told.startswith(text)
