"""What messages say of an event: to programs, and to people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from django.core.mail import EmailMessage

from llm.alerts.messages import build_notice
from llm.keys import create_key
from llm.models import Account, ApiKey, EndUser
from tests.llm.payloads import THRESHOLD

pytestmark = pytest.mark.django_db

PAYLOAD = {**THRESHOLD, "window_starts_at": "2026-10-31T18:15:00+00:00"}

ANNE = "a" * 32


def an_account(**changes: Any) -> Account:
    return Account.objects.create(**{"name": "acme", "time_zone": "Asia/Kathmandu", **changes})


def told(account: Account, **changes: Any) -> tuple[Mapping[str, Any], str, str]:
    """A webhook's data, a mail's subject and its text."""
    notice = build_notice("limit.threshold", account, {**PAYLOAD, **changes})
    return notice.facts, notice.mail.subject, notice.mail.text


def a_key(account: Account, name: str = "production") -> ApiKey:
    return create_key(account, name=name)[0]


def test_programs_get_the_facts_as_the_books_wrote_them_and_names_beside_them() -> None:
    account = an_account()
    facts, _, _ = told(account)
    assert facts == {
        **PAYLOAD,
        "account": "acme",
        "key": None,
        "window_resets_at": "2026-11-30T18:15:00+00:00",
    }


def test_people_get_a_mail_that_says_it_all() -> None:
    _, subject, text = told(an_account())
    assert subject == "[LLM gateway] acme has used 82 % of 1,000,000 tokens per month"
    assert text == (
        "acme has used 82 % of 1,000,000 tokens per month.\n\n"
        "Limit:         1,000,000 tokens per month\n"
        "Used:          823,456 tokens\n"
        "Since:         2026-10-31 18:15 UTC\n"
        "Resets:        2026-11-30 18:15 UTC\n\n"
        "Calls that would exceed the limit are refused. You will get this alert once per period.\n"
    )


@pytest.mark.parametrize(
    ("per", "how_often"),
    [("minute", "hour"), ("hour", "hour"), ("day", "day"), ("month", "day"), ("total", "day")],
)
def test_of_a_limit_for_each_end_user_the_first_is_named_in_the_mail_and_not_in_its_subject(
    per: str, how_often: str
) -> None:
    account = an_account()
    EndUser.objects.create(account=account, end_user=ANNE, name="anne\n@example.org")
    facts, subject, text = told(account, per=per, end_user=ANNE)
    assert (facts["end_user"], facts["end_user_name"]) == (ANNE, "anne\n@example.org")
    assert subject.startswith("[LLM gateway] An end user of acme has used 82 % of 1,000,000 tokens")
    assert f"\nEnd user:      anne @example.org ({ANNE})\n" in text
    assert f"at most once per {how_often}, however many end users reach it.\n" in text


@pytest.mark.parametrize(
    ("end_user", "words"),
    [
        (ANNE, ANNE),
        ("", "requests that name none, which share one limit"),
        (None, "too many others, who share one limit"),
    ],
)
def test_an_end_user_without_a_name_is_told_all_the_same(end_user: str | None, words: str) -> None:
    account, other = an_account(), an_account(name="other")
    EndUser.objects.create(account=other, end_user=ANNE, name="anne")
    facts, _, text = told(account, end_user=end_user)
    assert (facts["end_user"], facts["end_user_name"]) == (end_user, None)
    assert f"{words}\n" in text


def test_the_limit_of_a_key_names_the_key_by_what_people_recognise_and_no_more() -> None:
    account = an_account()
    key = a_key(account)
    facts, subject, text = told(account, api_key_id=key.pk)
    assert facts["key"] == key.masked
    assert subject == f"[LLM gateway] acme, key production ({key.masked}), has used 82 % of 1,000,000 tokens per month"
    assert text.startswith(f"acme, key production ({key.masked}), has used 82 % of")


def test_costs_are_told_in_usd() -> None:
    _, subject, text = told(an_account(), metric="cost", per="day", amount=12_500_000, used=10_000_001)
    assert subject == "[LLM gateway] acme has used 80 % of $12.50 per day"
    assert "Used:          $10.000001\n" in text


def test_amounts_of_cost_are_kept_from_who_may_not_see_costs() -> None:
    payload = {**PAYLOAD, "metric": "cost", "per": "day", "amount": 12_500_000, "used": 10_000_001}
    notice = build_notice("limit.threshold", an_account(), payload, shows_cost=False)
    assert notice.mail.subject == "[LLM gateway] acme has used 80 % of its cost limit per day"
    assert notice.mail.text.startswith("acme has used 80 % of its cost limit per day.\n\nSince: ")
    assert "$" not in notice.mail.text
    assert not {"amount", "used"} & set(notice.facts)
    assert notice.facts["percent"] == PAYLOAD["percent"]


def test_amounts_of_other_limits_are_told_to_all() -> None:
    notice = build_notice("limit.threshold", an_account(), PAYLOAD, shows_cost=False)
    assert (notice.facts["amount"], notice.facts["used"]) == (PAYLOAD["amount"], PAYLOAD["used"])


@pytest.mark.parametrize(
    ("fault", "words"),
    [("key", "its API key is wrong"), ("credit", "its credit is used up"), ("account", "the account is closed")],
)
def test_staff_are_told_what_to_see_to_at_a_provider(fault: str, words: str) -> None:
    facts = {"provider": "anthropic", "fault": fault, "status": 400, "seen_at": "2026-11-30T04:00:00+00:00"}
    notice = build_notice("provider.refused", None, facts)
    assert notice.facts == facts
    assert notice.mail.subject.startswith(f"[LLM gateway] anthropic refuses this gateway's account: {words}")
    assert "Status:        400\n" in notice.mail.text


def test_a_limit_in_all_never_begins_anew() -> None:
    facts, _, text = told(an_account(), per="total", window_starts_at="1970-01-01T00:00:00+00:00")
    assert facts["window_resets_at"] is None
    assert "Since:         it was set\nResets:        never (lifetime limit)\n" in text


@pytest.mark.parametrize(
    ("used", "amount", "percent"),
    [
        (800_000, 1_000_000, 80),
        (2_000_000, 1_000_000, 200),
        # Lowered, raised or emptied since: what was crossed stays true.
        (800_000, 10_000_000, 80),
        (5, 0, 80),
    ],
)
def test_the_share_is_what_is_used_and_at_least_the_threshold(used: int, amount: int, percent: int) -> None:
    _, subject, _ = told(an_account(), used=used, amount=amount)
    assert f"has used {percent} % of " in subject


@pytest.mark.parametrize(
    "name",
    [
        "acme\nBcc: everybody@example.com",
        "acme\r\n\r\nLimit: none",
        "acme\x00\x0b\x85\u2028\u2029 Bcc:",
        "\u202eacme",
    ],
)
def test_a_name_adds_no_header_to_the_mail_and_no_line_to_its_facts(name: str) -> None:
    account = Account(name=name, time_zone="UTC")
    honest = told(Account(name="acme", time_zone="UTC"))[2]

    _, subject, text = told(account)

    assert subject.isprintable()
    assert "acme" in subject
    assert len(text.splitlines()) == len(honest.splitlines())
    mail = EmailMessage(subject, text, to=["ops@example.com"]).message()
    assert mail["To"] == "ops@example.com"
    assert mail["Bcc"] is None


def test_the_name_of_a_key_adds_no_header_either() -> None:
    account = an_account()
    key = a_key(account, "one\nBcc: everybody@example.com")
    _, subject, _ = told(account, api_key_id=key.pk)
    assert subject.startswith(f"[LLM gateway] acme, key one Bcc: everybody@example.com ({key.masked}), has used")


@pytest.mark.parametrize(
    ("payload", "error"),
    [
        ({}, KeyError),
        ({**PAYLOAD, "per": "fortnight"}, ValueError),
        ({**PAYLOAD, "window_starts_at": "yesterday"}, ValueError),
        ({**PAYLOAD, "amount": "much"}, ValueError),
    ],
)
def test_what_nobody_can_tell_is_an_error(payload: dict[str, Any], error: type[Exception]) -> None:
    account = an_account()
    with pytest.raises(error):
        build_notice("limit.threshold", account, payload)


def test_an_event_that_nobody_knows_is_an_error() -> None:
    account = an_account()
    with pytest.raises(KeyError):
        build_notice("invoice.eaten", account, PAYLOAD)
