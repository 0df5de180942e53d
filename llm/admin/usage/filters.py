"""The filters of the list of calls, and the index that serves each query.

Exactly one condition leads (through its index, in id order); the others are checked on the rows that it yields.
Unpriced calls have two indexes, each for some of them.
Names are typed, with suggestions from few rows: the table is too large to list all names in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any
from uuid import UUID

from django import forms
from django.core.exceptions import ValidationError
from django.db.models import Q

from llm.admin.secrets import reduce_secrets
from llm.admin.usage.paginator import ORDERS
from llm.endusers import find_hashes
from llm.enums import FAILED_OUTCOMES, CallOutcome, UsageSource, UsageStatus
from llm.models import Account, ApiKey, ModelRoute, OpenCall, Usage
from llm.models.usage import CallQuerySet, UsageQuerySet, is_by_end_users, is_priced, is_tagged, is_unpriced
from llm.providers.registry import booked_providers
from llm.types import MAX_END_USER_CHARACTERS

FAILED = "failed"
UNDECIDED = "undecided"
MAX_KEYS = 50
PROPOSED_ACCOUNTS = 200
PROPOSALS_READ = 300


@dataclass(frozen=True, slots=True)
class Narrowing:
    """indexed: rows that an index yields in id order, by kind. condition: to be checked on them. opened: the calls in
    flight that match.
    """

    indexed: tuple[UsageQuerySet, ...]
    condition: Q
    opened: CallQuerySet[OpenCall]


def _choices(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    return [("", "any"), *pairs]


class DateInput(forms.DateInput):
    input_type = "date"

    def __init__(self) -> None:
        super().__init__(format="%Y-%m-%d")


def _text(label: str, *, proposals: str = "", placeholder: str = "any", limit: int = 200) -> forms.CharField:
    attrs = {"placeholder": placeholder, "autocomplete": "off", "spellcheck": "false"}
    if proposals:
        attrs["list"] = proposals
    return forms.CharField(label=label, required=False, max_length=limit, widget=forms.TextInput(attrs))


_BEGINNING = re.compile(r"[0-9a-f]{4,32}")

_LEADING = ("end_user", "key", "account", "model")
"""Conditions with an index, the one with the fewest calls first."""
_OF_CLOSED = ("status", "outcome", "source", "cost")
"""Conditions on what a call in flight doesn't have."""
_OUTCOMES = [(FAILED, "failed, any way"), (UNDECIDED, "needs a decision"), *CallOutcome.choices]


class UsageFilterForm(forms.Form):
    """All fields are optional; an unknown name is an error rather than an empty list."""

    account = _text("Account", proposals="gw-accounts")
    key = _text("Key", placeholder="name, start or last four")
    model = _text("Model", proposals="gw-models")
    end_user = _text("End user", placeholder="name or hash", limit=MAX_END_USER_CHARACTERS)
    tag = _text("Tag", placeholder="such as team:search")
    provider = forms.ChoiceField(required=False, choices=lambda: _choices((name, name) for name in booked_providers()))
    instance = _text("Instance", limit=50)
    status = forms.ChoiceField(required=False, choices=_choices(UsageStatus.choices))
    outcome = forms.ChoiceField(required=False, choices=_choices(_OUTCOMES))
    source = forms.ChoiceField(label="Token source", required=False, choices=_choices(UsageSource.choices))
    cost = forms.ChoiceField(
        required=False, choices=_choices([("unpriced", "unpriced"), ("priced", "priced"), ("disputed", "disputed")])
    )
    stream = forms.ChoiceField(required=False, choices=_choices([("yes", "streamed"), ("no", "whole")]))
    first = forms.DateField(label="From", required=False, widget=DateInput())
    last = forms.DateField(label="To", required=False, widget=DateInput())
    id = _text("Id", placeholder="call or request id, or its start")
    order = forms.ChoiceField(required=False, choices=[("", "newest first"), *((name, name) for name in ORDERS)])

    def clean_account(self) -> Account | None:
        name = self.cleaned_data["account"]
        if not name:
            return None
        alike = Account.objects.filter(name__iexact=name).order_by("pk")
        account = Account.objects.filter(name=name).first() or alike.first()
        if account is None:
            raise ValidationError("No account has this name.")
        return account

    def clean_key(self) -> list[int] | None:
        text = reduce_secrets(self.cleaned_data["key"])
        if not text:
            return None
        prefix, dots, last_four = text.partition("…")
        by_text = (
            Q(prefix=prefix, last_four=last_four)
            if dots
            else Q(prefix__startswith=text) | Q(last_four=text) | Q(name__iexact=text)
        )
        keys = list(ApiKey.objects.filter(by_text).values_list("pk", flat=True)[: MAX_KEYS + 1])
        if not keys:
            raise ValidationError("No key has this name, start or end.")
        if len(keys) > MAX_KEYS:
            raise ValidationError(f"More than {MAX_KEYS} keys match; please be more specific.")
        return keys

    def clean_tag(self) -> tuple[str, str] | None:
        text = self.cleaned_data["tag"]
        key, _, value = text.partition(":")
        if text and not (key and value):
            raise ValidationError("A key and a value, such as team:search.")
        return (key, value) if text else None

    def clean(self) -> dict[str, Any]:
        data: dict[str, Any] = super().clean() or self.cleaned_data
        if data.get("end_user") and "account" in data:
            data["end_user"] = self._find_end_user(data["end_user"], data["account"])
        first, last = data.get("first"), data.get("last")
        if first and last and last < first:
            self.add_error("last", "This is before the start date.")
        return data

    def _find_end_user(self, text: str, account: Account | None) -> frozenset[str]:
        hashes = find_hashes(text, None if account is None else account.pk)
        if not hashes:
            wrong = "Choose the account too, or enter a hash." if account is None else "The account has no end users."
            self.add_error("end_user", wrong)
        return hashes

    def narrowing(self, calls: UsageQuerySet) -> Narrowing:
        """Only for a valid form."""
        conditions = self._conditions()
        indexed: tuple[UsageQuerySet, ...]
        opened = self._opened(conditions)
        if self.cleaned_data["status"] == UsageStatus.OPEN:
            return Narrowing((), Q(), opened)
        calls = calls.near_days(self.cleaned_data["first"], self.cleaned_data["last"])
        if identifier := self.cleaned_data["id"]:
            indexed = (calls.filter(_by_identifier(identifier)),)
        elif self.cleaned_data["cost"] == "unpriced":
            indexed = (calls.never_priced(), calls.cost_taken_back())
            conditions.pop("cost")
        elif self.cleaned_data["outcome"] == UNDECIDED:
            indexed = (calls.undecided(),)
            conditions.pop("outcome")
        elif leading := next((name for name in _LEADING if name in conditions), None):
            indexed = (calls.filter(conditions.pop(leading)),)
        else:
            indexed = (calls,)
        rest = Q()
        for condition in conditions.values():
            rest &= condition
        return Narrowing(indexed, rest, opened)

    def _opened(self, conditions: Mapping[str, Q]) -> CallQuerySet[OpenCall]:
        """None if something is asked for that only a closed call can have."""
        data, opened = self.cleaned_data, OpenCall.objects.all()
        is_possible = (
            data["status"] in ("", UsageStatus.OPEN)
            and data["outcome"] in ("", CallOutcome.PENDING)
            and data["source"] in ("", UsageSource.NONE)
            and not data["cost"]
        )
        if not is_possible:
            return opened.none()
        if identifier := data["id"]:
            ours = _by_our_identifier(identifier)
            opened = opened.none() if ours is None else opened.filter(ours)
        for condition in (condition for name, condition in conditions.items() if name not in _OF_CLOSED):
            opened = opened.filter(condition)
        return opened

    def _conditions(self) -> dict[str, Q]:
        """By the name under which a condition may lead; `keys` and `status` have no suitable index."""
        data = self.cleaned_data
        keys, status = data["key"] or [], data["status"]
        found = {
            "status": Q(status=status) if status else None,
            "key" if len(keys) == 1 else "keys": Q(api_key__in=keys) if len(keys) != 1 else Q(api_key=keys[0]),
            "end_user": is_by_end_users(data["end_user"]) if data["end_user"] else None,
            "account": Q(account=data["account"]) if data["account"] else None,
            "model": Q(model=data["model"]) if data["model"] else None,
            "provider": Q(provider=data["provider"]) if data["provider"] else None,
            "instance": _by_instance(data["instance"]),
            "outcome": _by_outcome(data["outcome"]),
            "tag": is_tagged(*data["tag"]) if data["tag"] else None,
            "source": Q(usage_source=data["source"]) if data["source"] else None,
            "cost": _by_cost(data["cost"]),
            "stream": Q(is_stream=data["stream"] == "yes") if data["stream"] else None,
            "days": _by_days(data["first"], data["last"]),
        }
        if not keys:
            found.pop("keys")
        return {name: condition for name, condition in found.items() if condition is not None}


def proposed_accounts() -> list[str]:
    return list(Account.objects.values_list("name", flat=True)[:PROPOSED_ACCOUNTS])


def proposed_models() -> list[str]:
    """Routes, and the names in the latest calls."""
    called = Usage.objects.order_by("-id").values_list("model", flat=True)[:PROPOSALS_READ]
    return sorted({*called, *ModelRoute.objects.values_list("name", flat=True)[:PROPOSALS_READ]})


def _by_days(first: date | None, last: date | None) -> Q | None:
    condition = Q()
    if first is not None:
        condition &= Q(local_day__gte=first)
    if last is not None:
        condition &= Q(local_day__lte=last)
    return condition or None


def _by_instance(name: str) -> Q | None:
    """Calls of before there were instances were calls of the provider's only one."""
    return Q(provider_instance=name) | Q(provider_instance="", provider=name) if name else None


def _by_outcome(outcome: str) -> Q | None:
    if outcome == FAILED:
        return Q(outcome__in=FAILED_OUTCOMES)
    if outcome == UNDECIDED:
        return Q(pk__in=Usage.objects.undecided().values("pk"))
    return Q(outcome=outcome) if outcome else None


def _by_cost(kind: str) -> Q | None:
    return {"unpriced": is_unpriced(), "priced": is_priced(), "disputed": Q(is_disputed=True)}.get(kind)


def _by_identifier(text: str) -> Q:
    """The whole id of a call, a request or a reply, or the beginning of one of ours."""
    # The second condition repeats the index's own, without which SQLite doesn't use it.
    of_reply = Q(upstream_response_id=text) & ~Q(upstream_response_id="")
    ours = _by_our_identifier(text)
    return of_reply if ours is None else ours | of_reply


def _by_our_identifier(text: str) -> Q | None:
    """The id of a call or a request, or its beginning; None for anything else."""
    digits = text.strip().lower().removeprefix("req_").replace("-", "")
    if not _BEGINNING.fullmatch(digits):
        return None
    first, last = (UUID(digits.ljust(32, filler)) for filler in "0f")
    return Q(id__range=(first, last)) | Q(request_id__range=(first, last))
