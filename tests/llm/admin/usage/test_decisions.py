from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.test import Client

from llm.admin.format import NOTHING, signed_count, signed_usd
from llm.audit import verify
from llm.books.adjusting import decide_call
from llm.books.figures import compute_figures
from llm.enums import Meter
from llm.models import Rate, RateSet, RefusedWrite, Usage, UsageAdjustment
from llm.prices.staff import set_price
from llm.types import Service
from tests.llm.admin.factories import (
    NOON,
    disputed_row,
    lost_row,
    make_account,
    make_key,
    messages_of,
    save,
    staff_with,
    usage_row,
)
from tests.pages import send, text_of

pytestmark = pytest.mark.django_db

LIST = "/admin/llm/usage/"
QUEUE = f"{LIST}?outcome=undecided"


@pytest.fixture
def call() -> Usage:
    """A lost call of 100 tokens in and 20 out at 1 USD in and 10 USD out a million, so of 0.0003 USD."""
    rates = {Meter.INPUT: Decimal(1), Meter.OUTPUT: Decimal(10)}
    price = set_price("openai", "gpt-test", rates=rates, effective_from=NOON)
    (row,) = save(lost_row(make_key(make_account()), price=price, rate_set=price.rate_sets.get()))
    return row


@pytest.fixture
def disputed(call: Usage) -> Usage:
    """As `call`, but its upstream said what can't be true."""
    claim = {"prompt_tokens": -5, "note": "<b>bold</b>"}
    (row,) = save(disputed_row(call.api_key, price=call.price, rate_set=call.rate_set, disputed_usage=claim))
    return row


def decision(**values: str) -> dict[str, str]:
    return {"billable": "yes", "figures": "estimate", "reason": "The provider's log has it.", **values}


def decide_url(call: Usage) -> str:
    return f"{LIST}{call.pk}/decide/"


def test_an_estimate_is_kept_and_billed(admin_client: Client, admin_user: User, call: Usage) -> None:
    response = send(admin_client, decide_url(call), decision())

    adjustment = UsageAdjustment.objects.get()
    assert response["Location"] == QUEUE
    assert messages_of(response) == ["Decided: 100 tokens in, 20 out, $0.0003, billable."]
    assert (adjustment.usage, adjustment.source, adjustment.is_billable) == (call, "decision", True)
    assert (adjustment.prompt_tokens, adjustment.completion_tokens, adjustment.cost) == (0, 0, Decimal(0))
    assert (adjustment.reason, adjustment.decided_by) == ("The provider's log has it.", admin_user)
    assert LogEntry.objects.get().change_message == "Decided: 100 tokens in, 20 out, $0.0003, billable."


def test_typed_tokens_are_priced_as_the_call_was(admin_client: Client, call: Usage) -> None:
    form = decision(billable="no", figures="typed", prompt_tokens="1000", completion_tokens="0")

    response = send(admin_client, decide_url(call), form)

    adjustment = UsageAdjustment.objects.get()
    assert messages_of(response) == ["Decided: 1,000 tokens in, 0 out, $0.001, not billable."]
    assert (adjustment.prompt_tokens, adjustment.completion_tokens) == (900, -20)
    assert (adjustment.cost, adjustment.is_billable) == (Decimal("0.0007"), False)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"reason": " "}, "This field is required."),
        ({"reason": "x" * 501}, "at most 500 characters"),
        ({"billable": ""}, "This field is required."),
        ({"billable": "perhaps"}, "Select a valid choice."),
        ({"figures": "guess"}, "Select a valid choice."),
        ({"figures": "typed"}, "Enter a number; 0 is allowed."),
        ({"prompt_tokens": "0"}, "This would be ignored"),
        ({"figures": "typed", "prompt_tokens": "1", "completion_tokens": "x"}, "Enter a whole number."),
        ({"figures": "typed", "prompt_tokens": "-1", "completion_tokens": "1"}, "greater than or equal to 0"),
        ({"figures": "typed", "prompt_tokens": "1", "completion_tokens": "9" * 30}, "less than or equal to"),
    ],
)
def test_a_wrong_form_decides_nothing(
    admin_client: Client, call: Usage, values: dict[str, str], complaint: str
) -> None:
    response = send(admin_client, decide_url(call), decision(**values))

    assert response.status_code == 200
    assert complaint in response.content.decode()
    assert not UsageAdjustment.objects.exists()


def test_a_call_is_decided_once(admin_client: Client, call: Usage) -> None:
    send(admin_client, decide_url(call), decision())

    for response in (send(admin_client, decide_url(call), decision(billable="no")), admin_client.get(decide_url(call))):
        assert response["Location"] == f"{LIST}{call.pk}/change/"
        assert "The usage of this call is already known." in messages_of(response)
    assert UsageAdjustment.objects.get().is_billable is True


def test_two_who_decide_at_once_decide_once(admin_client: Client, call: Usage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one's page was read before the first one's decision."""

    def somebody_was_quicker(*args: Any, **kwargs: Any) -> UsageAdjustment:
        monkeypatch.undo()
        decide_call(call.pk, counts=None, is_billable=False, reason="First.", user=None)
        return decide_call(*args, **kwargs)

    monkeypatch.setattr("llm.admin.usage.decisions.decide_call", somebody_was_quicker)

    response = send(admin_client, decide_url(call), decision())

    assert response["Location"] == f"{LIST}{call.pk}/change/"
    assert len(messages_of(response)) == 1
    assert not LogEntry.objects.exists()


def test_figures_without_a_cost_do_not_keep_that_of_the_estimate(admin_client: Client) -> None:
    rates = {Meter.INPUT: Decimal(900_000)}
    price = set_price("openai", "gpt-test", rates=rates, effective_from=NOON)
    (call,) = save(lost_row(make_key(make_account()), price=price, completion_tokens=0))
    form = decision(figures="typed", prompt_tokens="1000000000", completion_tokens="0")

    response = send(admin_client, decide_url(call), form)

    assert "has no rate for this usage" in response.content.decode()
    assert not UsageAdjustment.objects.exists()


def test_other_calls_are_not_decided(admin_client: Client) -> None:
    (settled,) = save(usage_row(make_key(make_account())))

    response = admin_client.post(decide_url(settled), decision())

    assert messages_of(response) == ["The usage of this call is already known."]
    assert not UsageAdjustment.objects.exists()
    assert admin_client.get(f"{LIST}{settled.request_id}/decide/").status_code == 404
    assert admin_client.get(f"{LIST}17/decide/").status_code in (302, 404)


@pytest.mark.parametrize(("permissions", "seen", "decided"), [((), 403, 403), (("view_usage",), 200, 403)])
def test_deciding_takes_its_permission(call: Usage, permissions: tuple[str, ...], seen: int, decided: int) -> None:
    client = staff_with(*permissions)
    page = client.get(f"{LIST}{call.pk}/change/")

    assert page.status_code == seen
    assert decide_url(call) not in page.content.decode()
    assert client.get(decide_url(call)).status_code == decided
    assert send(client, decide_url(call), decision()).status_code == decided
    assert not UsageAdjustment.objects.exists()


def test_who_may_change_usage_decides_but_edits_nothing(call: Usage) -> None:
    client = staff_with("change_usage")

    assert decide_url(call) in client.get(f"{LIST}{call.pk}/change/").content.decode()
    assert client.post(f"{LIST}{call.pk}/change/", {"model": "x"}).status_code == 403
    assert send(client, decide_url(call), decision()).status_code == 302
    assert UsageAdjustment.objects.count() == 1


def test_the_queue_holds_what_nobody_has_decided(admin_client: Client, call: Usage) -> None:
    key = call.api_key
    late, decided = save(lost_row(key), lost_row(key))
    decide_call(decided.pk, counts=None, is_billable=True, reason="Known.", user=None)
    values: dict[str, Any] = {"usage": late, "is_billable": True, "recorded_at": NOON, "reason": "late"}
    UsageAdjustment(source="spool", **values).stamp_digest().save()

    assert [row.pk for row in admin_client.get(QUEUE).context["cl"].result_list] == [call.pk]


def test_disputed_calls_wait_in_the_same_queue(admin_client: Client, call: Usage, disputed: Usage) -> None:
    assert {row.pk for row in admin_client.get(QUEUE).context["cl"].result_list} == {call.pk, disputed.pk}

    decide_call(disputed.pk, counts=None, is_billable=False, reason="Ours, then.", user=None)

    assert [row.pk for row in admin_client.get(QUEUE).context["cl"].result_list] == [call.pk]


def test_who_decides_on_a_disputed_call_sees_what_its_upstream_said(admin_client: Client, disputed: Usage) -> None:
    page = admin_client.get(decide_url(disputed)).content.decode()

    assert "Decide on a disputed call" in page
    assert "can&#x27;t be right" in page or "can't be right" in page
    assert "&quot;prompt_tokens&quot;: -5" in page
    assert "<b>bold" not in page


def test_a_disputed_call_is_billed_by_what_staff_found_out(admin_client: Client, disputed: Usage) -> None:
    detail = f"{LIST}{disputed.pk}/change/"
    assert "not billable until staff decide" in admin_client.get(detail).content.decode()
    form = decision(figures="typed", prompt_tokens="1000", completion_tokens="10", reason="Their dashboard.")

    response = send(admin_client, decide_url(disputed), form)

    adjustment = disputed.adjustments.get()
    assert messages_of(response) == ["Decided: 1,000 tokens in, 10 out, $0.0011, billable."]
    assert (adjustment.source, adjustment.prompt_tokens, adjustment.completion_tokens) == ("decision", 900, -10)
    assert (adjustment.cost, adjustment.is_billable, adjustment.rate_set) == (Decimal("0.0008"), True, None)
    assert "until staff decide" not in admin_client.get(detail).content.decode()
    disputed.refresh_from_db()
    assert (disputed.is_disputed, disputed.is_billable, disputed.prompt_tokens) == (True, False, 100)


def test_absurd_figures_that_came_too_late_are_shown_with_the_lost_call(admin_client: Client, call: Usage) -> None:
    document = {"disputed_usage": {"prompt_tokens": -17}}
    RefusedWrite.objects.create(digest="a", usage_id=call.pk, reason="disputed", document=document)
    RefusedWrite.objects.create(
        digest="b", usage_id=uuid4(), reason="of another", document={"disputed_usage": -9_876_543}
    )

    page = admin_client.get(decide_url(call)).content.decode()

    assert "Decide on a lost call" in page
    assert "&quot;prompt_tokens&quot;: -17" in page
    assert "-9876543" not in page


@pytest.mark.slow
def test_lists_and_pages_show_the_resulting_figures(admin_client: Client, admin_user: User, call: Usage) -> None:
    form = decision(figures="typed", prompt_tokens="70100", completion_tokens="10", reason="<b>Their invoice.</b>")
    send(admin_client, decide_url(call), form)

    row = admin_client.get(LIST).content.decode()
    page = admin_client.get(f"{LIST}{call.pk}/change/").content.decode()

    for text in ("corrected", "70.1k", "$0.0702"):
        assert text in row
    assert "not billable" not in row
    for text in ("+70,000", "-10", "+$0.0699", "70,100", "$0.0702", "&lt;b&gt;Their invoice.", admin_user.username):
        assert text in page


def test_differences_carry_their_sign() -> None:
    assert [signed_count(number) for number in (1200, -35, 0)] == ["+1,200", "-35", NOTHING]
    amounts = (Decimal("1.25"), Decimal("-0.03"), Decimal(0), None)
    assert [signed_usd(amount) for amount in amounts] == ["+$1.25", "-$0.03", NOTHING, NOTHING]


ALL_RATES = {meter: Decimal(10**position) for position, meter in enumerate(Meter)}


@pytest.fixture
def priced() -> Usage:
    """A lost call at a price that has a rate for each meter, of tokens and beside them."""
    price = set_price("openai", "gpt-all", rates=ALL_RATES, effective_from=NOON)
    Rate.objects.create(rate_set=price.rate_sets.get(), meter="web_searches", amount=Decimal(10), per_units=1000)
    (row,) = save(lost_row(make_key(make_account()), price=price, rate_set=price.rate_sets.get()))
    return row


@pytest.mark.slow
def test_a_decision_takes_every_meter(admin_client: Client, priced: Usage) -> None:
    figures = {
        "prompt_tokens": 1_000_000,
        "completion_tokens": 500_000,
        "cache_read_tokens": 400_000,
        "cache_write_5m_tokens": 200_000,
        "cache_write_1h_tokens": 100_000,
        "audio_input_tokens": 50_000,
        "reasoning_tokens": 30_000,
        "audio_output_tokens": 20_000,
        "web_searches": 3,
    }
    form = decision(figures="typed", **{name: str(figure) for name, figure in figures.items()})

    response = send(admin_client, decide_url(priced), form)

    assert response.status_code == 302
    call = Usage.objects.get()
    known = compute_figures(call, call.adjustments.order_by("id"))
    used = {name: getattr(known.counts, name) for name in figures if name != "web_searches"}
    assert used == {name: figure for name, figure in figures.items() if name != "web_searches"}
    assert known.counts.extra_meters == {"web_searches": 3}
    charged = {
        Meter.INPUT: 250_000,
        Meter.CACHE_READ: 400_000,
        Meter.CACHE_WRITE_5M: 200_000,
        Meter.CACHE_WRITE_1H: 100_000,
        Meter.AUDIO_INPUT: 50_000,
        Meter.OUTPUT: 450_000,
        Meter.REASONING: 30_000,
        Meter.AUDIO_OUTPUT: 20_000,
    }
    cost = sum((ALL_RATES[meter] * tokens / 1_000_000 for meter, tokens in charged.items()), Decimal("0.03"))
    assert known.cost_pico == int(cost * 10**12)
    assert verify().sentences == []


def test_a_decision_is_priced_as_the_call_was_served(admin_client: Client, call: Usage) -> None:
    """A place without rates has no price: the standard one would be too little."""
    form = decision(figures="typed", prompt_tokens="1000", completion_tokens="0", inference_geo="us")

    refused = send(admin_client, decide_url(call), form)

    assert "has no rate for this usage, inference_geo:us" in refused.content.decode()
    assert not UsageAdjustment.objects.exists()
    price = call.price
    assert price is not None
    us = RateSet.objects.create(price=price, inference_geo="us")
    for meter, amount in ((Meter.INPUT, "1.1"), (Meter.OUTPUT, "11")):
        Rate.objects.create(rate_set=us, meter=meter, amount=Decimal(amount))

    response = send(admin_client, decide_url(call), form)

    assert messages_of(response) == ["Decided: 1,000 tokens in, 0 out, $0.0011, billable."]
    adjustment = UsageAdjustment.objects.get()
    assert (adjustment.inference_geo, adjustment.rate_set) == ("us", us)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"cache_read_tokens": "11"}, "The parts exceed their total"),
        ({"reasoning_tokens": "3", "audio_output_tokens": "3"}, "The parts exceed their total"),
        ({"cache_read_tokens": "-1"}, "greater than or equal to 0"),
        ({"audio_input_tokens": "1"}, "has no rate for this usage"),
        ({"web_searches": "1"}, "has no rate for this usage"),
        ({"figures": "estimate", "speed": "fast", "prompt_tokens": "", "completion_tokens": ""}, "would be ignored"),
        (
            {"figures": "estimate", "web_searches": "1", "prompt_tokens": "", "completion_tokens": ""},
            "would be ignored",
        ),
    ],
)
def test_parts_that_cannot_be_decide_nothing(
    admin_client: Client, call: Usage, values: dict[str, str], complaint: str
) -> None:
    form = decision(**{"figures": "typed", "prompt_tokens": "10", "completion_tokens": "5", **values})

    response = send(admin_client, decide_url(call), form)

    assert complaint in response.content.decode()
    assert not UsageAdjustment.objects.exists()


@pytest.fixture
def urgent(call: Usage) -> Usage:
    """A disputed call that was served as `priority`, at twice the rates."""
    rates = {Meter.INPUT: Decimal(2), Meter.OUTPUT: Decimal(20)}
    price = set_price(
        "openai", "gpt-test", rates=rates, service=Service("priority"), effective_from=NOON + timedelta(seconds=1)
    )
    rate_set = price.rate_sets.get(service_tier="priority")
    (row,) = save(
        disputed_row(call.api_key, price=price, rate_set=rate_set, service_tier="priority", cost=Decimal("0.0006"))
    )
    return row


def test_a_tier_that_is_known_stays_where_nobody_says_another(admin_client: Client, urgent: Usage) -> None:
    page = admin_client.get(decide_url(urgent)).content.decode()
    assert "Service tier “priority”" in page

    send(admin_client, decide_url(urgent), decision(figures="typed", prompt_tokens="1000", completion_tokens="0"))

    figures = compute_figures(urgent, UsageAdjustment.objects.all())
    assert (figures.cost_pico, figures.service) == (2_000_000_000, Service("priority"))
    assert figures.rate_set_id == urgent.rate_set_id
    assert verify().sentences == []


def test_the_standard_service_must_be_said(admin_client: Client, urgent: Usage) -> None:
    form = decision(figures="typed", prompt_tokens="1000", completion_tokens="0", service_tier="standard")

    send(admin_client, decide_url(urgent), form)

    figures = compute_figures(urgent, UsageAdjustment.objects.all())
    assert (figures.cost_pico, figures.service) == (1_000_000_000, Service("standard"))
    assert verify().sentences == []


def test_each_part_of_the_service_stays_by_itself(admin_client: Client, urgent: Usage) -> None:
    form = decision(figures="typed", prompt_tokens="1000", completion_tokens="0", inference_geo="us")

    page = send(admin_client, decide_url(urgent), form).content.decode()

    assert "has no rate for this usage, service_tier:priority, inference_geo:us" in page
    assert not UsageAdjustment.objects.exists()


def test_the_page_says_what_is_known_of_the_service(admin_client: Client, call: Usage, disputed: Usage) -> None:
    assert "Unknown: no response was read" in admin_client.get(decide_url(call)).content.decode()
    assert "the provider named no other" in admin_client.get(decide_url(disputed)).content.decode()


# --- Several at once --------------------------------------------------------------------------------------------------

MANY = "/admin/llm/usage/decide/"


def boxes(client: Client) -> list[str]:
    return [f"{known.call.pk}={seen}" for known, seen in client.get(MANY).context["calls"]]


def test_several_calls_are_decided_at_once(admin_client: Client, call: Usage, disputed: Usage) -> None:
    chosen = boxes(admin_client)
    assert len(chosen) == 2
    response = admin_client.post(MANY, {"call": chosen, "billable": "no", "reason": "an outage"})
    assert response.status_code == 302
    for each in (call, disputed):
        [adjustment] = each.adjustments.all()
        assert (adjustment.is_billable, adjustment.reason) == (False, "an outage")
    assert boxes(admin_client) == []
    assert "No call needs a decision." in text_of(admin_client.get(MANY))


def test_of_several_calls_those_decided_meanwhile_are_left(admin_client: Client, call: Usage, disputed: Usage) -> None:
    chosen = boxes(admin_client)
    send(admin_client, decide_url(call), decision())
    admin_client.post(MANY, {"call": chosen, "billable": "no", "reason": "an outage"})
    admin_client.post(MANY, {"call": chosen, "billable": "no", "reason": "an outage"})
    assert [each.adjustments.count() for each in (call, disputed)] == [1, 1]


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"billable": "no", "reason": "x"},
        {"call": "x=y", "billable": "no", "reason": "x"},
        {"call": "", "billable": "?"},
    ],
)
def test_a_wrong_form_decides_none_of_several(admin_client: Client, call: Usage, data: dict[str, str]) -> None:
    assert admin_client.post(MANY, data).status_code == 200
    assert not call.adjustments.exists()


def test_deciding_several_takes_its_permission(call: Usage) -> None:
    assert staff_with("view_usage").get(MANY).status_code == 403
