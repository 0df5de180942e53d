from __future__ import annotations

from datetime import UTC, datetime, timedelta
from io import StringIO

import pytest
import time_machine
from django.core.management import CommandError, call_command
from rest_framework.authtoken.models import Token

from billing.models import StaffToken
from tests.billing.api.asking import Asker, make_staff

pytestmark = pytest.mark.django_db


def create(*arguments: str) -> str:
    out = StringIO()
    call_command("create_api_token", *arguments, stdout=out, stderr=StringIO())
    return out.getvalue()


def status(secret: str) -> int:
    answered: int = Asker(secret.strip()).get("accounts/").status_code
    return answered


def test_the_token_alone_is_printed_and_works() -> None:
    make_staff("view_account")

    printed = create("finance")

    token = StaffToken.objects.get()
    assert (len(printed), printed[:5], printed[-1]) == (54, "llmt_", "\n")
    assert (printed[:12], printed[-5:-1]) == (token.prefix, token.last_four)
    assert (token.name, token.scopes) == ("management API", ["read"])
    assert status(printed) == 200


def test_a_token_expires_after_90_days_or_as_asked_and_a_year_is_the_most() -> None:
    make_staff("view_account")
    with time_machine.travel(datetime(2026, 11, 30, tzinfo=UTC), tick=False):
        create("finance")
        create("finance", "--name", "reports", "--days", "366")
        for days in ("0", "367", "-1"):
            with pytest.raises(CommandError, match="A token is valid for 1 to 366 days"):
                create("finance", "--name", "long", "--days", days)

    expiries = {token.name: token.expires_at for token in StaffToken.objects.all()}
    assert expiries == {
        "management API": datetime(2027, 2, 28, tzinfo=UTC),
        "reports": datetime(2027, 12, 1, tzinfo=UTC),
    }


def test_a_second_token_of_a_name_takes_the_first_ones_place_or_is_refused() -> None:
    make_staff("view_account")
    first = create("finance")

    with pytest.raises(CommandError, match="finance has a token “management API” already"):
        create("finance")
    assert StaffToken.objects.count() == 1
    other = create("finance", "--name", "other")

    second = create("finance", "--replace")
    assert (status(first), status(second), status(other)) == (401, 200, 200)


def test_replacing_takes_the_plain_one_away_too() -> None:
    Token.objects.create(user=make_staff("view_account"))

    assert status(create("finance", "--replace")) == 200
    assert Token.objects.count() == 0


def test_tokens_are_revoked_by_name_or_all_at_once() -> None:
    user = make_staff("view_account")
    Token.objects.create(user=user)
    first, second, third = create("finance"), create("finance", "--name", "b"), create("finance", "--name", "c")

    assert create("finance", "--revoke", "--name", "b") == ""
    assert [status(each) for each in (first, second, third)] == [200, 401, 200]
    assert Token.objects.count() == 1

    assert create("finance", "--revoke") == ""
    assert [status(each) for each in (first, second, third)] == [401, 401, 401]
    assert Token.objects.count() == 0
    assert StaffToken.objects.count() == 3
    with pytest.raises(CommandError, match="finance has no such token"):
        create("finance", "--revoke")


def test_an_expired_token_leaves_its_name_free() -> None:
    make_staff("view_account")
    create("finance", "--days", "1")

    with time_machine.travel(datetime.now(UTC) + timedelta(days=2)):
        assert status(create("finance")) == 200


def test_who_can_t_use_a_token_gets_none() -> None:
    user = make_staff()
    user.is_staff = False
    user.save()

    with pytest.raises(CommandError, match="finance is not an active staff user"):
        create("finance")
    with pytest.raises(CommandError, match="There is no user “nobody”"):
        create("nobody")
    with pytest.raises(CommandError, match="invalid choice: 'write'"):
        create("finance", "--scope", "write")
    assert StaffToken.objects.count() == 0
