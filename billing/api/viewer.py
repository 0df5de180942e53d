"""Whose eyes see an answer: staff's, or a customer's, who sees its own account and nothing of ours."""

from __future__ import annotations

from dataclasses import dataclass

from django.http import HttpRequest
from rest_framework.request import Request

from llm.keys import Caller


@dataclass(frozen=True, slots=True)
class Viewer:
    """account_id: of a customer, None for staff. sees_cost: what providers charge us, which some accounts are shown."""

    account_id: int | None
    sees_cost: bool

    @property
    def is_staff(self) -> bool:
        return self.account_id is None


STAFF = Viewer(account_id=None, sees_cost=True)


def viewer_of(request: Request | HttpRequest | None) -> Viewer:
    """None: where the API is described, for which all is shown. Says nothing of what staff may: see `MayAsk`."""
    user = getattr(request, "user", None)
    if isinstance(user, Caller):
        return Viewer(account_id=user.account_id, sees_cost=user.shows_cost)
    return STAFF
