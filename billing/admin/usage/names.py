"""What the explorer's groups are called, and which filters choose each of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

from billing.enums import OutcomeGroup
from billing.usage_reports import REST, Bucket, Dimension, Question, Unit
from llm.enums import CallOutcome
from llm.models import Account, ApiKey, EndUser


@dataclass(frozen=True, slots=True)
class Name:
    """hint: what the name alone doesn't say. owner: the account of a key.

    filters: those of this page, and of the list of calls, that choose it; None: none can.
    """

    text: str
    hint: str = ""
    filters: Mapping[str, str] | None = field(default_factory=dict)
    owner: str = ""

    @property
    def on_one_line(self) -> str:
        """Keys of different accounts are often called the same."""
        return f"{self.text} ({self.owner})" if self.owner else self.text


def names_of(dimension: Dimension, values: Iterable[Any], question: Question) -> Mapping[Any, Name]:
    values = list(values)
    if dimension == Dimension.ACCOUNT:
        found = Account.objects.in_bulk(values)
        return {pk: Name(found[pk].name, filters={"account": found[pk].name}) for pk in values}
    if dimension == Dimension.KEY:
        return _names_of_keys(values)
    if dimension == Dimension.END_USER:
        return _names_of_end_users(values, question.filters.account_id)
    if dimension == Dimension.TAG:
        return {value: _name_of_tag(question.tag_key, value) for value in values}
    if dimension == Dimension.OUTCOME:
        return {each: _name_of_outcome(each) for each in values}
    return {value: Name(value or "(empty)", filters={dimension.value: value} if value else None) for value in values}


def _name_of_outcome(value: str) -> Name:
    """Of a call, or of the group that days have; a day of the former shape has none."""
    if not value:
        return Name("(not known yet)", filters=None)
    label = OutcomeGroup(value).label if value in OutcomeGroup.values else CallOutcome(value).label
    return Name(str(label), filters={"outcome": value})


def _names_of_keys(values: list[int]) -> Mapping[Any, Name]:
    keys = ApiKey.objects.select_related("account").in_bulk(values)
    return {
        pk: Name(
            keys[pk].name,
            f"{keys[pk].account.name}, {keys[pk].masked}",
            {"account": keys[pk].account.name, "key": keys[pk].masked},
            keys[pk].account.name,
        )
        for pk in values
    }


def _names_of_end_users(values: list[str], account_id: int | None) -> Mapping[Any, Name]:
    """A hash is of one account alone; to that of a known account an index leads."""
    known = EndUser.objects.all() if account_id is None else EndUser.objects.filter(account=account_id)
    names = dict(known.filter(end_user__in=values).values_list("end_user", "name"))
    named = {
        each: Name(names.get(each) or f"{each[:12]}…", "" if each in names else "name not stored", {"end_user": each})
        if each
        else Name("(no end user)", filters=None)
        for each in values
        if each != REST
    }
    return {**named, REST: Name("(smaller end users)", "those beyond the 200 of a day that cost most", None)}


def _name_of_tag(key: str, value: str | None) -> Name:
    if value is None:
        return Name(f"(without {key})", filters=None)
    return Name(value or "(empty)", filters={"tag": f"{key}:{value}"} if value else None)


def label_of_bucket(bucket: Bucket, question: Question) -> str:
    if isinstance(bucket, datetime):
        return f"{bucket.astimezone(ZoneInfo(question.zone)):%Y-%m-%d %H:%M}"
    if question.unit == Unit.MONTH:
        return f"{bucket:%B %Y}"
    return f"week of {_text(bucket)}" if question.unit == Unit.WEEK else _text(bucket)


def short_label_of_bucket(bucket: Bucket, question: Question) -> str:
    """Under a bar."""
    if isinstance(bucket, datetime):
        local = bucket.astimezone(ZoneInfo(question.zone))
        return f"{local.day} {local:%b %H:%M}"
    return f"{bucket:%b %Y}" if question.unit == Unit.MONTH else f"{bucket.day} {bucket:%b}"


def _text(day: date) -> str:
    return f"{day:%Y-%m-%d}"
