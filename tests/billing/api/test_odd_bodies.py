"""What programs may send by mistake: whatever stands where in a body, the answer says what is wrong."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from django.urls import URLPattern, get_resolver

from billing.invoices.drafting import draft_invoice
from billing.models import ExportJob, Invoice, OneOffLine, Payment
from llm.models import UsageAdjustment
from tests.billing.api.asking import staff_asker
from tests.billing.calls import make_call, make_price
from tests.billing.factories import make_account, make_profile
from tests.billing.months import IN_SEPTEMBER, OCTOBER, SEPTEMBER, close_and_issue
from tests.llm.admin.factories import disputed_row, make_key, save

pytestmark = [pytest.mark.slow, pytest.mark.django_db]

BODIES: dict[str, list[dict[str, Any]]] = {
    "invoices/<pk>/credit-notes/": [
        {"kind": "goodwill", "reason": "x", "lines": [{"position": 1, "amount": "1.50"}]},
        {"kind": "correction", "reason": "x", "lines": [{"position": 1}]},
    ],
    "invoices/<pk>/one-off-lines/": [
        {"description": "Setup fee", "amount": "500.00", "tax_percent": "7", "reason": "x"},
    ],
    "invoices/<pk>/one-off-lines/<line_id>/removal/": [{"reason": "x"}],
    "invoices/<pk>/payments/": [
        {"paid_on": "2025-10-20", "amount": "0.01", "reference": "4711", "reason": "x"},
    ],
    "invoices/<pk>/payments/<payment_id>/reversal/": [{"reason": "x"}],
    "calls/<pk>/decision/": [
        {
            "is_billable": True,
            "reason": "x",
            "used": {"prompt_tokens": 9, "completion_tokens": 4, "web_searches": 0, "service_tier": "standard"},
        },
    ],
    "exports/": [{"period": "2025-09", "account": 1, "formats": ["csv"]}],
}
"""By endpoint: bodies that are as they should be."""

ODD: list[Any] = [None, True, -1, 10**30, "", "x", "\0", "\ud800", "NaN", [], {}, [None], [{}]]


def variants(value: Any) -> Iterator[Any]:
    """The value with each place in it, itself among them, replaced by each odd value, left out, or doubled."""
    yield from copy.deepcopy(ODD)
    if isinstance(value, dict):
        for name, inner in value.items():
            yield {key: each for key, each in value.items() if key != name}
            yield from ({**value, name: odd} for odd in variants(inner))
    elif isinstance(value, list):
        yield value + value
        for number, inner in enumerate(value):
            yield from ([*value[:number], odd, *value[number + 1 :]] for odd in variants(inner))
            yield [*value, None]


def endpoints_that_take_a_body() -> set[str]:
    found = set()
    for resolver in get_resolver("billing.api.urls").url_patterns:
        assert isinstance(resolver, URLPattern)
        view = getattr(resolver.callback, "cls", None)
        if hasattr(view, "post"):
            found.add(str(resolver.pattern).replace("<int:", "<").replace("<uuid:", "<"))
    return found


def test_all_endpoints_that_take_a_body_are_walked() -> None:
    assert endpoints_that_take_a_body() == set(BODIES)


@pytest.mark.parametrize("path", BODIES)
def test_no_body_breaks_an_endpoint(path: str) -> None:
    account = make_account()
    make_profile(account, tax_percent=Decimal(19))
    price = make_price()
    make_call(account, day=IN_SEPTEMBER, price=price, prompt_tokens=1_000_000)
    make_call(account, day=OCTOBER.start, price=price, prompt_tokens=1_000_000)
    [invoice] = close_and_issue(account, SEPTEMBER)
    draft = draft_invoice(account, OCTOBER) if "one-off" in path else None
    staff = staff_asker(
        *(
            "view_invoice",
            "credit_invoice",
            "prepare_invoice",
            "issue_invoice",
            "view_exportjob",
            "run_export",
            "view_usage",
            "change_usage",
        )
    )
    key = make_key(account)
    bodies = [json.dumps(each) for right in BODIES[path] for each in variants(right)]
    bodies += ["", "{", "[", '{"kind":', "nul", "\x00", '{"lines": [}']
    for body in dict.fromkeys(bodies):
        # A call is decided once, so that each body has one of its own.
        pk = save(disputed_row(key))[0].pk if path.startswith("calls/") else (draft or invoice).pk
        rows = written()
        response = staff.post(
            path.replace("<pk>", str(pk)).replace("<line_id>", "1").replace("<payment_id>", "1"), body
        )
        assert response.status_code in (201, 400), (body, response.content)
        if response.status_code == 400:
            assert list(response.json()) == ["detail"], body
            assert isinstance(response.json()["detail"], str), body
            assert rows == written(), body


def written() -> int:
    return (
        Invoice.objects.count()
        + OneOffLine.objects.count()
        + Payment.objects.count()
        + ExportJob.objects.count()
        + UsageAdjustment.objects.count()
    )
