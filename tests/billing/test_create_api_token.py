from __future__ import annotations

from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from rest_framework.authtoken.models import Token

from tests.billing.api.asking import Asker, make_staff

pytestmark = pytest.mark.django_db


def create(*arguments: str) -> str:
    out = StringIO()
    call_command("create_api_token", *arguments, stdout=out, stderr=StringIO())
    return out.getvalue()


def test_the_token_alone_is_printed_and_works() -> None:
    make_staff("view_account")

    printed = create("finance")

    assert printed == f"{Token.objects.get().key}\n"
    assert Asker(printed.strip()).get("accounts/").status_code == 200


def test_a_second_token_takes_the_first_ones_place_or_is_refused() -> None:
    make_staff("view_account")
    first = create("finance").strip()

    with pytest.raises(CommandError, match="finance has a token already"):
        create("finance")
    assert Token.objects.get().key == first

    second = create("finance", "--replace").strip()
    assert Asker(first).get("accounts/").status_code == 401
    assert Asker(second).get("accounts/").status_code == 200


def test_a_token_is_revoked_once() -> None:
    make_staff()
    create("finance")

    assert create("finance", "--revoke") == ""
    assert Token.objects.count() == 0
    with pytest.raises(CommandError, match="finance has no token"):
        create("finance", "--revoke")


def test_who_can_t_use_a_token_gets_none() -> None:
    user = make_staff()
    user.is_staff = False
    user.save()

    with pytest.raises(CommandError, match="finance is no active staff user"):
        create("finance")
    with pytest.raises(CommandError, match="There is no user “nobody”"):
        create("nobody")
    assert Token.objects.count() == 0
