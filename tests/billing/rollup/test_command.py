"""`manage.py rebuild_rollups`: what it says, and what it refuses."""

from __future__ import annotations

from datetime import date
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from billing.management.commands import rebuild_rollups
from billing.models import DailyUsage, RollupMark
from billing.rollup import refresh
from llm.books.clock import database_now
from llm.models import ApiKey
from tests.billing.factories import make_account
from tests.llm.admin.factories import make_key, save, usage_row

pytestmark = pytest.mark.django_db

DAY = date(2026, 10, 31)


@pytest.fixture
def key() -> ApiKey:
    key = make_key(make_account())
    save(usage_row(key, local_day=DAY, recorded_at=database_now()))
    return key


def rebuild(**options: Any) -> tuple[str, str]:
    out, err = StringIO(), StringIO()
    call_command("rebuild_rollups", **{"first": "2026-10-01", "last": "2026-10-31", **options}, stdout=out, stderr=err)
    return out.getvalue(), err.getvalue()


def test_wrong_rows_are_made_right(key: ApiKey) -> None:
    refresh()
    DailyUsage.objects.update(calls=17)
    assert rebuild() == ("Account-days rebuilt: 1.\n", "")
    assert DailyUsage.objects.get().calls == 1


def test_only_the_account_that_was_named(key: ApiKey) -> None:
    other = make_key(make_account("Other"))
    save(usage_row(other, local_day=DAY, recorded_at=database_now()))
    refresh()
    DailyUsage.objects.update(calls=17)
    rebuild(account="Other")
    assert dict(DailyUsage.objects.values_list("account__name", "calls")) == {"Acme": 17, "Other": 1}


def test_a_long_run_tells_how_far_it_is(key: ApiKey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rebuild_rollups, "SECONDS_A_REPORT", 0)
    refresh()
    assert rebuild()[1] == "1 of 1 day\n"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"first": "2026-10"}, "“2026-10” is not a valid date, e.g. 2026-10-31."),
        ({"last": "yesterday"}, "“yesterday” is not a valid date, e.g. 2026-10-31."),
        ({"first": "2026-11-01"}, "2026-11-01 is after 2026-10-31: name the first day with --from."),
        ({"account": "Nobody"}, "There is no account “Nobody”."),
    ],
)
def test_what_makes_no_sense_is_refused_and_nothing_is_written(
    key: ApiKey, options: dict[str, str], sentence: str
) -> None:
    with pytest.raises(CommandError) as refusal:
        rebuild(**options)
    assert str(refusal.value) == sentence
    assert (DailyUsage.objects.count(), RollupMark.objects.count()) == (0, 0)
