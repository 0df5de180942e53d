"""An account's time zone changes with a month."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest

from billing.timezones import apply_time_zones, set_time_zone
from tests.billing.factories import make_account, make_profile

pytestmark = pytest.mark.django_db

YEAR_ENDS = datetime(2026, 12, 31, 20, tzinfo=UTC)
"""The new year has begun in Kathmandu, in New York it is afternoon."""


@pytest.mark.parametrize(
    ("present", "wanted", "since"),
    [
        ("Asia/Kathmandu", "UTC", date(2027, 2, 1)),
        ("America/New_York", "UTC", date(2027, 1, 1)),
        ("UTC", "UTC", None),
    ],
)
def test_a_zone_holds_from_the_next_month_of_the_present_zone_on(present: str, wanted: str, since: date | None) -> None:
    account = make_account(time_zone=present)
    profile = make_profile(account)
    set_time_zone(profile.pk, wanted, now=YEAR_ENDS)
    profile.refresh_from_db()
    account.refresh_from_db()
    assert (profile.time_zone, profile.time_zone_from, account.time_zone) == (wanted, since, present)


def test_a_zone_that_was_taken_back_never_comes() -> None:
    profile = make_profile(make_account(time_zone="UTC"))
    set_time_zone(profile.pk, "Asia/Kathmandu", now=YEAR_ENDS)
    set_time_zone(profile.pk, "UTC", now=YEAR_ENDS)
    profile.refresh_from_db()
    assert (profile.time_zone, profile.time_zone_from) == ("UTC", None)
    assert apply_time_zones(now=datetime(2027, 3, 1, tzinfo=UTC)) == 0


def test_a_new_time_zone_holds_from_its_month_on() -> None:
    account = make_account(time_zone="UTC")
    make_profile(account, time_zone="Asia/Kathmandu", time_zone_from=date(2026, 11, 1))
    assert apply_time_zones(now=datetime(2026, 10, 31, 23, 59, tzinfo=UTC)) == 0
    account.refresh_from_db()
    assert account.time_zone == "UTC"
    assert apply_time_zones(now=datetime(2026, 11, 1, tzinfo=UTC)) == 1
    assert apply_time_zones(now=datetime(2026, 11, 1, tzinfo=UTC)) == 0
    account.refresh_from_db()
    assert account.time_zone == "Asia/Kathmandu"
