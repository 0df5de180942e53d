"""Who a response is for: staff, or a customer, who sees only its own account and nothing internal."""

from __future__ import annotations

from dataclasses import dataclass

from django.http import HttpRequest
from rest_framework.request import Request

from llm.keys import Caller


@dataclass(frozen=True, slots=True)
class Viewer:
    """account_id: the customer's; None for staff. sees_cost: whether to show what providers charge us."""

    account_id: int | None
    sees_cost: bool

    @property
    def is_staff(self) -> bool:
        return self.account_id is None


STAFF = Viewer(account_id=None, sees_cost=True)


def viewer_of(request: Request | HttpRequest | None) -> Viewer:
    """None while the API description is generated, which shows everything. What staff may do is up to `MayAsk`."""
    user = getattr(request, "user", None)
    if isinstance(user, Caller):
        return Viewer(account_id=user.account_id, sees_cost=user.shows_cost)
    return STAFF
