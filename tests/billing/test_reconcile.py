"""Importing providers' reports, and setting them against the books. The reports are shaped as their docs show."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from pytest_django import Settings

from billing.models import CostImport, ProviderCost
from billing.reconcile import ReasonCode, ReconciledLine, ReportError, import_report, read_report, reconciliation
from llm.books.figures import compute_figures
from llm.enums import AdjustmentSource, CallOutcome, UsageSource, UsageStatus
from llm.models import ApiKey, Rate, Usage, UsageAdjustment
from llmproject.providers import InstanceSettings
from tests.billing.calls import make_price
from tests.billing.factories import make_account
from tests.llm.admin.factories import make_key, open_row, save, usage_row
from tests.llm.books.making import adjust_now

pytestmark = pytest.mark.django_db

REPORTS = Path(__file__).parent / "reports"
DAY = date(2026, 11, 1)
START = 1_793_491_200
NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
DATED = "gpt-4o-2024-08-06"


def report(name: str) -> bytes:
    return (REPORTS / name).read_bytes()


def edited(name: str, edit: Callable[[dict[str, Any]], object]) -> bytes:
    page = json.loads(report(name))
    edit(page)
    return json.dumps(page).encode()


def import_file(provider: str, name: str, **options: Any) -> str:
    out = StringIO()
    call_command("import_provider_costs", provider, str(REPORTS / name), stdout=out, stderr=StringIO(), **options)
    return out.getvalue().strip()


def rows() -> list[tuple[Any, ...]]:
    return list(
        ProviderCost.objects.values_list(
            "utc_day", "report", "model", "line_item", "prompt_tokens", "completion_tokens", "cost"
        )
    )


@pytest.fixture
def key() -> ApiKey:
    return make_key(make_account())


def call(key: ApiKey, **values: Any) -> Usage:
    """One of 1400 tokens in (400 of them cached) and 1250 out, as the OpenAI reports say; its cost too."""
    figures = {"prompt_tokens": 1400, "completion_tokens": 1250, "cache_read_tokens": 400, "cost": Decimal("0.016")}
    names = {"upstream_model": "gpt-4o", "reported_model": DATED, "opened_at": NOON}
    return usage_row(key, **{**figures, **names, **values})


def adjust(row: Usage, source: str, **deltas: Any) -> None:
    adjustment = UsageAdjustment(
        usage=row, source=source, is_billable=True, reason="test", recorded_at=row.opened_at, **deltas
    )
    adjustment.stamp_digest().save()


def import_openai() -> None:
    import_file("openai", "openai_costs.json")
    import_file("openai", "openai_completions.json")


def line_of(model: str, *, day: date = DAY) -> ReconciledLine:
    found = [line for line in reconciliation("openai", day, day).lines if line.model == model]
    assert len(found) == 1
    return found[0]


def codes(line: ReconciledLine) -> list[ReasonCode]:
    return [reason.code for reason in line.reasons]


# --- Reading and importing --------------------------------------------------------------------------------------------


def test_openai_costs_are_kept_by_line_item_exactly() -> None:
    assert import_file("openai", "openai_costs.json") == (
        "Imported 3 rows of 2026-11-01 to 2026-11-02, 0.026 USD; 0 rows of earlier reports replaced."
    )

    assert rows() == [
        (DAY, "costs", "", "Web search tool calls", None, None, Decimal("0.01")),
        (DAY, "costs", DATED, f"{DATED}, input", None, None, Decimal("0.0035")),
        (DAY, "costs", DATED, f"{DATED}, output", None, None, Decimal("0.0125")),
    ]


def test_openai_usage_is_kept_by_model_and_a_cut_report_is_told() -> None:
    errors = StringIO()
    path = str(REPORTS / "openai_completions.json")
    call_command("import_provider_costs", "openai", path, stdout=StringIO(), stderr=errors)

    row = ProviderCost.objects.get()
    assert (row.report, row.model, row.requests, row.prompt_tokens) == ("completions", DATED, 7, 1400)
    assert (row.completion_tokens, row.cache_read_tokens, row.cache_write_tokens, row.cost) == (1250, 400, None, None)
    assert "more follow" in errors.getvalue()


def test_anthropic_cents_become_dollars() -> None:
    import_file("anthropic", "anthropic_costs.json")

    assert rows() == [
        (DAY, "costs", "", "Web Search Usage", None, None, Decimal(1)),
        (
            DAY,
            "costs",
            "claude-sonnet-4-20250514",
            "Claude Sonnet 4 Usage - Input Tokens",
            None,
            None,
            Decimal("1.2345"),
        ),
    ]


def test_anthropic_usage_adds_all_input_up_over_the_hours_of_a_day() -> None:
    import_file("anthropic", "anthropic_messages.json")

    row = ProviderCost.objects.get()
    assert (row.utc_day, row.report, row.model) == (DAY, "messages", "claude-sonnet-4-20250514")
    assert (row.prompt_tokens, row.completion_tokens) == (1500 + 200 + 1500 + 3, 507)
    assert (row.cache_read_tokens, row.cache_write_tokens, row.requests) == (200, 1500, None)


def test_a_dry_run_writes_nothing() -> None:
    assert import_file("openai", "openai_costs.json", dry_run=True).startswith("Would import 3 rows")

    assert (CostImport.objects.count(), ProviderCost.objects.count()) == (0, 0)


def test_the_same_file_twice_is_one_import() -> None:
    import_file("openai", "openai_costs.json")
    before = list(ProviderCost.objects.values())

    assert import_file("openai", "openai_costs.json") == "This file was already imported: nothing was done."
    assert list(ProviderCost.objects.values()) == before
    assert CostImport.objects.count() == 1


def test_a_later_report_replaces_the_days_it_speaks_of_and_no_other_report() -> None:
    import_openai()

    def correct(page: dict[str, Any]) -> None:
        page["data"][0]["results"] = [page["data"][0]["results"][0] | {"amount": {"value": 9, "currency": "USD"}}]

    summary = import_report("openai", edited("openai_costs.json", correct), file_name="later.json")

    assert (summary.rows, summary.replaced) == (1, 3)
    assert rows() == [
        (DAY, "completions", DATED, "", 1400, 1250, None),
        (DAY, "costs", DATED, f"{DATED}, input", None, None, Decimal(9)),
    ]
    assert ProviderCost.objects.get(report="costs").source.file_name == "later.json"


def test_another_providers_days_stay() -> None:
    import_file("anthropic", "anthropic_costs.json")
    import_openai()

    assert ProviderCost.objects.filter(provider="anthropic").count() == 2


@pytest.mark.parametrize("between", [b"\n", b"", b" \r\n\t"])
def test_pages_may_stand_one_after_the_other(between: bytes) -> None:
    both = read_report("openai", between.join((report("openai_costs.json"), report("openai_completions.json"))))

    assert len(both.rows) == 4
    assert both.days == {("costs", DAY), ("costs", DAY + timedelta(days=1)), ("completions", DAY)}


def test_pages_may_stand_in_a_list() -> None:
    listed = b"[%s, %s]" % (report("openai_costs.json"), report("openai_completions.json"))

    assert len(read_report("openai", listed).rows) == 4


def test_an_instance_that_is_booked_by_itself_has_reports_of_its_own(settings: Settings) -> None:
    settings.LLM_PROVIDERS = (
        InstanceSettings("second", "openai", booked_as="second"),
        InstanceSettings("mock", "echo"),
    )
    import_file("openai", "openai_costs.json")
    import_file("second", "openai_completions.json")
    assert set(ProviderCost.objects.values_list("provider", flat=True)) == {"openai", "second"}
    with pytest.raises(ReportError, match="only of openai and anthropic and second"):
        read_report("echo", b"{}")


def test_amounts_are_never_floats() -> None:
    """0.1 + 0.2 of floats is 0.30000000000000004; a long amount keeps what pico-units can hold, rounded once."""

    def amounts(page: dict[str, Any]) -> None:
        page["data"][0]["results"] = [
            page["data"][0]["results"][0] | {"amount": {"value": value, "currency": "usd"}}
            for value in ("0.1", "0.2", "123456789012.0000000000004", "0.0000000000001")
        ]

    row = read_report("openai", edited("openai_costs.json", amounts)).rows[0]

    assert row.cost == Decimal("123456789012.300000000001")


def _set(path: str, value: object) -> Callable[[dict[str, Any]], None]:
    def edit(page: dict[str, Any]) -> None:
        target: Any = page
        *steps, last = [int(step) if step.isdigit() else step for step in path.split(".")]
        for step in steps:
            target = target[step]
        target[last] = value

    return edit


FIRST = "data.0.results.0"


@pytest.mark.parametrize(
    ("name", "path", "value", "sentence"),
    [
        ("openai_costs", "object", "list", "page 1.object is 'list', not “page”"),
        ("openai_costs", "data", None, "page 1.data is missing"),
        ("openai_costs", "data", {}, "page 1.data is {}, not a list"),
        ("openai_costs", "data.1", 7, "page 1.data[1] is 7, not an object"),
        ("openai_costs", "data.0.start_time", "2026", "page 1.data[0].start_time is '2026', not a whole number"),
        ("openai_costs", "data.0.start_time", 10**17, "not a moment in Unix seconds"),
        ("openai_costs", "data.0.end_time", START + 86_401, "page 1.data[0] spans more than one UTC day"),
        ("openai_costs", "data.0.end_time", START, "page 1.data[0] ends before it begins"),
        ("openai_costs", "data.1.start_time", START, "page 1.data[1]"),
        ("openai_costs", f"{FIRST}.amount.value", None, f"page 1.{FIRST}.amount.value is missing"),
        ("openai_costs", f"{FIRST}.amount.value", "1,50", "is '1,50', not an amount"),
        ("openai_costs", f"{FIRST}.amount.value", "NaN", "is 'NaN', not an amount"),
        ("openai_costs", f"{FIRST}.amount.value", True, "is True, not an amount"),
        ("openai_costs", f"{FIRST}.amount.value", 10**15, "not an amount"),
        ("openai_costs", f"{FIRST}.amount.value", "1e-999", "not an amount with at most 60 decimals"),
        ("openai_costs", f"{FIRST}.amount.currency", "eur", "amount.currency is 'eur', not “usd”"),
        ("openai_costs", f"{FIRST}.line_item", "x" * 201, "not text of at most 200 characters"),
        ("openai_costs", f"{FIRST}.line_item", "a\0b", "not text of at most 200 characters"),
        ("openai_costs", f"{FIRST}.object", "organization.usage.images.result", "not one of the reports that can be"),
        ("openai_costs", f"{FIRST}.object", "organization.usage.completions.result", "page 1 mixes completions and"),
        ("openai_completions", f"{FIRST}.input_tokens", -1, "input_tokens is -1, not a whole number, 0 or more"),
        ("openai_completions", f"{FIRST}.input_tokens", 1.5, "not a whole number, 0 or more"),
        ("openai_completions", f"{FIRST}.input_tokens", 2**63, "not a whole number, 0 or more"),
        ("openai_completions", "data.0.results", [], "There are no figures in the file"),
        ("anthropic_costs", f"{FIRST}.amount", "abc", "amount is 'abc', not an amount"),
        ("anthropic_costs", f"{FIRST}.currency", "EUR", "currency is 'EUR', not “USD”"),
        ("anthropic_costs", "data.0.starting_at", "yesterday", "starting_at is 'yesterday', not a moment"),
        ("anthropic_costs", "data.0.ending_at", "2026-11-03T00:00:00Z", "spans more than one UTC day"),
        ("anthropic_costs", f"{FIRST}.amount", None, "is neither from a cost report nor from a messages usage report"),
        ("anthropic_messages", f"{FIRST}.cache_creation", None, "cache_creation is missing: expected an object"),
        ("anthropic_messages", f"{FIRST}.output_tokens", "7", "output_tokens is '7', not a whole number"),
    ],
)
def test_what_is_wrong_is_told_with_its_place_and_nothing_is_written(
    name: str, path: str, value: object, sentence: str
) -> None:
    with pytest.raises(ReportError) as refused:
        import_report(name.partition("_")[0], edited(f"{name}.json", _set(path, value)), file_name="x.json")

    assert sentence.replace(FIRST, "data[0].results[0]") in str(refused.value)
    assert (CostImport.objects.count(), ProviderCost.objects.count()) == (0, 0)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "The file is empty"),
        (b"[]", "The file is empty"),
        (b"\xff\xfe", "The file is not UTF-8 text: byte 0 is invalid."),
        (b'{"object": "page",}', "The file is not JSON:"),
        (b'{"object": NaN}', "The file contains NaN"),
        (b"[" * 100_000, "nested too deep"),
        (b'{"data": [' + b"9" * 5000 + b"]}", "a number is too long"),
        (b'{"data": [1e99999999999999999999]}', "a number is too long"),
        (b"7", "page 1 is 7, not an object"),
        (b'"text"', "page 1 is 'text', not an object"),
    ],
)
def test_what_is_no_report_is_refused(content: bytes, sentence: str) -> None:
    for provider in ("openai", "anthropic"):
        with pytest.raises(ReportError) as refused:
            import_report(provider, content, file_name="x.json")
        assert sentence in str(refused.value)
    assert CostImport.objects.count() == 0


def test_a_page_that_is_in_the_file_twice_is_refused() -> None:
    with pytest.raises(ReportError, match=r"page 2.data\[0\] is the same bucket as page 1.data\[0\]"):
        import_report("openai", report("openai_costs.json") * 2, file_name="x.json")
    assert ProviderCost.objects.count() == 0


def test_the_command_names_file_and_place(tmp_path: Path) -> None:
    broken = tmp_path / "broken.json"
    broken.write_bytes(edited("openai_costs.json", _set("object", "list")))

    with pytest.raises(CommandError, match=r"broken\.json was not imported\. page 1\.object is 'list'"):
        call_command("import_provider_costs", "openai", str(broken))
    with pytest.raises(CommandError, match=r"can't be read: No such file"):
        call_command("import_provider_costs", "openai", str(tmp_path / "none.json"))


# --- Comparing --------------------------------------------------------------------------------------------------------


def test_books_that_say_the_same_agree(key: ApiKey) -> None:
    save(call(key))
    import_openai()

    found = reconciliation("openai", DAY, DAY)

    model, web_search = found.lines[0], found.lines[1]
    assert (model.model, model.reasons, model.cost_difference, model.token_difference) == (DATED, (), Decimal(0), 0)
    assert (web_search.line_item, codes(web_search)) == ("Web search tool calls", [ReasonCode.NOT_ATTRIBUTABLE])
    assert (found.totals.ours, found.totals.theirs) == (Decimal("0.016"), Decimal("0.026"))
    assert found.totals.difference == Decimal("0.01")


def test_a_wrong_price_is_told_where_tokens_agree(key: ApiKey) -> None:
    save(call(key, cost=Decimal("0.012")))
    import_openai()

    line = line_of(DATED)

    assert codes(line) == [ReasonCode.PRICE]
    assert line.cost_difference == Decimal("0.004")
    assert "charges 0.004 USD more than" in line.reasons[0].sentence


def test_rounded_amounts_are_no_wrong_price(key: ApiKey) -> None:
    save(call(key, cost=Decimal("0.016002")))
    import_openai()

    assert codes(line_of(DATED)) == [ReasonCode.ROUNDING]


def with_web_searches(key: ApiKey, searches: int, **values: Any) -> Usage:
    """Each at 0.005 USD, in the call's cost."""
    price = make_price("gpt-4o", input="2.5", output="10")
    rate_set = price.rate_sets.get()
    Rate.objects.create(rate_set=rate_set, meter="web_searches", amount=Decimal(5), per_units=1000)
    cost = values.pop("cost", Decimal("0.016") + searches * Decimal("0.005"))
    return call(key, extra_meters={"web_searches": searches}, cost=cost, rate_set_id=rate_set.pk, price=price, **values)


def test_web_searches_that_are_charged_without_a_model_are_no_wrong_price(key: ApiKey) -> None:
    """The provider charges 0.01 for two of them on a line of its own."""
    save(with_web_searches(key, 2))
    import_openai()

    line = line_of(DATED)

    assert (codes(line), line.cost_difference) == ([ReasonCode.BESIDE_TOKENS], Decimal("-0.01"))
    assert line.reasons[0].sentence.startswith("0.01 USD is for web searches and similar items")
    assert reconciliation("openai", DAY, DAY).totals.difference == Decimal(0)


def test_a_wrong_price_shows_beside_web_searches(key: ApiKey) -> None:
    save(with_web_searches(key, 2, cost=Decimal("0.022")))
    import_openai()

    line = line_of(DATED)

    assert codes(line) == [ReasonCode.BESIDE_TOKENS, ReasonCode.PRICE]
    assert "charges 0.004 USD more than" in line.reasons[1].sentence


def test_web_searches_of_a_later_settlement_count_too(key: ApiKey) -> None:
    (row,) = save(with_web_searches(key, 0))
    adjust(row, AdjustmentSource.PROVIDER, cost=Decimal("0.01"), extra_meters={"web_searches": 2})
    import_openai()

    assert codes(line_of(DATED)) == [ReasonCode.BESIDE_TOKENS]


def ungrouped(amount: str) -> None:
    """The cost report as OpenAI gives it to who doesn't ask for line items."""

    def edit(page: dict[str, Any]) -> None:
        page["data"][0]["results"] = [
            {"object": "organization.costs.result", "amount": {"value": amount, "currency": "usd"}, "line_item": None}
        ]

    import_report("openai", edited("openai_costs.json", edit), file_name="ungrouped.json")
    import_file("openai", "openai_completions.json")


def test_a_cost_report_without_models_is_compared_in_all(key: ApiKey) -> None:
    save(call(key))
    ungrouped("0.016")

    model, whole = reconciliation("openai", DAY, DAY).lines

    assert (model.model, model.reasons, model.token_difference) == (DATED, (), 0)
    assert (whole.model, whole.line_item, whole.reasons, whole.cost_difference) == ("", "", (), Decimal(0))


def test_a_cost_report_without_models_that_differs_says_by_how_much(key: ApiKey) -> None:
    save(call(key))
    ungrouped("0.02")

    model, whole = reconciliation("openai", DAY, DAY).lines

    assert (codes(model), codes(whole)) == ([ReasonCode.IN_ALL], [ReasonCode.IN_ALL])
    assert "names no models" in model.reasons[0].sentence
    assert "charges 0.004 USD more than the books say" in whole.reasons[0].sentence
    assert whole.cost_difference == Decimal("0.004")


def test_a_usage_report_without_models_is_compared_in_all(key: ApiKey) -> None:
    save(call(key))
    import_file("openai", "openai_costs.json")
    import_report(
        "openai",
        edited("openai_completions.json", lambda page: page["data"][0]["results"][0].update(model=None)),
        file_name="ungrouped.json",
    )

    found = {line.model or line.line_item: line for line in reconciliation("openai", DAY, DAY).lines}

    assert (codes(found[DATED]), found[""].token_difference, codes(found[""])) == ([], 0, [])


def test_an_unpriced_call_is_the_reason_until_it_is_priced(key: ApiKey) -> None:
    (row,) = save(call(key, cost=None))
    import_openai()
    assert codes(line_of(DATED)) == [ReasonCode.UNPRICED]

    adjust(row, AdjustmentSource.DECISION, cost=Decimal("0.016"))

    assert codes(line_of(DATED)) == []


@pytest.mark.parametrize("estimate", [Decimal("0.009"), None])
def test_a_cost_that_was_taken_back_is_the_reason_until_there_is_another(key: ApiKey, estimate: Decimal | None) -> None:
    (row,) = save(call(key, cost=estimate, outcome=CallOutcome.LOST, is_billable=False))
    import_openai()
    counts = compute_figures(row, ()).counts
    if estimate is None:
        adjust_now(row.pk, AdjustmentSource.DECISION, counts=counts, cost_pico=0, is_billable=True, reason="?")
    adjust_now(row.pk, AdjustmentSource.SPOOL, counts=counts, cost_pico=None, is_billable=True, reason="late")
    assert codes(line_of(DATED)) == [ReasonCode.UNPRICED]

    adjust_now(
        row.pk, AdjustmentSource.PROVIDER, counts=counts, cost_pico=16 * 10**9, is_billable=True, reason="priced"
    )

    assert codes(line_of(DATED)) == []


def test_tokens_that_the_books_lack_were_used_past_the_gateway(key: ApiKey) -> None:
    save(call(key, prompt_tokens=1000))
    import_openai()

    line = line_of(DATED)

    assert codes(line) == [ReasonCode.NOT_HERE]
    assert "400 tokens more" in line.reasons[0].sentence


def test_a_model_that_the_books_don_t_know_is_missing_here() -> None:
    import_openai()

    line = line_of(DATED)

    assert (line.ours, codes(line), line.cost_difference) == (None, [ReasonCode.NOT_HERE], Decimal("0.016"))


def test_a_model_that_the_report_doesn_t_know_is_missing_there(key: ApiKey) -> None:
    save(call(key), call(key, reported_model="o9"))
    import_openai()

    line = line_of("o9")

    assert (line.theirs, codes(line), line.cost_difference) == (None, [ReasonCode.NOT_THERE], Decimal("-0.016"))


def test_fewer_tokens_there_than_it_had_reported(key: ApiKey) -> None:
    save(call(key), call(key))
    import_openai()

    assert codes(line_of(DATED)) == [ReasonCode.NOT_THERE]


def test_the_same_total_split_otherwise_is_unexplained(key: ApiKey) -> None:
    save(call(key, prompt_tokens=1401, completion_tokens=1249))
    import_openai()

    assert codes(line_of(DATED)) == [ReasonCode.UNEXPLAINED]


def test_estimated_calls_explain_a_difference_until_the_figures_come(key: ApiKey) -> None:
    (row,) = save(
        call(
            key,
            status=UsageStatus.ESTIMATED,
            usage_source=UsageSource.ESTIMATED,
            outcome=CallOutcome.TIMEOUT,
            reported_model="",
            prompt_tokens=1000,
            cost=Decimal("0.015"),
        )
    )
    save(call(key, prompt_tokens=0, completion_tokens=0, cache_read_tokens=0, cost=Decimal(0)))
    import_openai()
    assert codes(line_of(DATED)) == [ReasonCode.ESTIMATED]

    adjust(row, AdjustmentSource.PROVIDER, prompt_tokens=400, cost=Decimal("0.001"))

    line = line_of(DATED)
    assert codes(line) == []
    assert line.ours is not None
    assert (line.ours.side.requests, line.ours.estimated_calls) == (2, 0)


def test_open_calls_are_named(key: ApiKey) -> None:
    save(open_row(key, opened_at=NOON, upstream_model="gpt-4o"))
    import_openai()

    line = line_of("gpt-4o")

    assert codes(line) == [ReasonCode.NOT_THERE, ReasonCode.OPEN]
    assert line.reasons[1].sentence == "Still in flight, so not counted yet: 1 call."


def test_refused_calls_are_no_difference(key: ApiKey) -> None:
    nothing = {"prompt_tokens": 0, "completion_tokens": 0, "cache_read_tokens": 0}
    save(
        call(key, status=UsageStatus.VOID, outcome=CallOutcome.UPSTREAM_REFUSED, cost=None, **nothing),
        call(key, reported_model="o9", cost=Decimal(0), **nothing),
    )

    lines = reconciliation("openai", DAY, DAY).lines

    assert [(line.model, line.reasons) for line in lines] == [("o9", ())]


def test_without_a_cost_report_costs_can_t_be_compared(key: ApiKey) -> None:
    save(call(key))
    import_file("openai", "openai_completions.json")

    line = line_of(DATED)

    assert (codes(line), line.cost_difference, line.token_difference) == ([ReasonCode.NO_COSTS], None, 0)
    assert reconciliation("openai", DAY, DAY).totals.difference is None


def test_without_a_usage_report_tokens_can_t_be_compared(key: ApiKey) -> None:
    save(call(key, cost=Decimal(1)))
    import_file("openai", "openai_costs.json")

    line = line_of(DATED)

    assert (codes(line), line.token_difference) == ([ReasonCode.NO_TOKENS], None)
    assert line.cost_difference == Decimal("-0.984")


def test_calls_at_midnight_that_stand_on_another_day_are_told(key: ApiKey) -> None:
    """The last second of October here, November there."""
    last_second = datetime(2026, 10, 31, 23, 59, 59, tzinfo=UTC)
    save(call(key, opened_at=last_second))
    import_openai()

    lines = reconciliation("openai", date(2026, 10, 31), DAY).lines

    assert [(line.utc_day.day, codes(line)) for line in lines if line.model] == [
        (31, [ReasonCode.OTHER_DAY]),
        (1, [ReasonCode.OTHER_DAY]),
    ]


def test_days_are_utc_s_whatever_the_accounts_day_and_each_call_is_in_one(key: ApiKey) -> None:
    edges = [
        datetime(2026, 10, 31, 23, 59, 59, 999_999, tzinfo=UTC),
        datetime(2026, 11, 1, tzinfo=UTC),
        datetime(2026, 11, 1, 23, 59, 59, 999_999, tzinfo=UTC),
        datetime(2026, 11, 2, tzinfo=UTC),
    ]
    save(*(call(key, opened_at=edge, local_day=date(2026, 11, 3)) for edge in edges))

    lines = reconciliation("openai", date(2026, 10, 31), date(2026, 11, 2)).lines

    assert [(line.utc_day.day, line.ours.side.requests) for line in lines if line.ours] == [(31, 1), (1, 2), (2, 1)]


def test_a_gateways_clock_may_be_wrong_by_less_than_an_hour(key: ApiKey) -> None:
    row = call(key, opened_at=datetime(2026, 11, 1, 0, 0, 5, tzinfo=UTC))
    row.id = call(key, opened_at=datetime(2026, 10, 31, 23, 10, tzinfo=UTC)).id
    save(row.stamp_digest())

    (line,) = reconciliation("openai", DAY, DAY).lines

    assert line.ours is not None
    assert line.ours.side.requests == 1


def test_calls_without_a_reported_name_stay_apart_where_it_is_not_clear_which(key: ApiKey) -> None:
    save(call(key), call(key, reported_model="gpt-4o-2024-11-20"), call(key, reported_model=""))

    models = [line.model for line in reconciliation("openai", DAY, DAY).lines]

    assert models == ["gpt-4o", DATED, "gpt-4o-2024-11-20"]


def test_a_span_has_bounds() -> None:
    for first, last in ((DAY, DAY - timedelta(days=1)), (DAY, DAY + timedelta(days=366))):
        with pytest.raises(ValueError, match="is not a span of 1 to 366 days"):
            reconciliation("openai", first, last)


def test_the_books_of_a_day_are_found_by_the_primary_key(key: ApiKey, django_assert_num_queries: Any) -> None:
    from billing.reconcile.books import _sums_of_calls

    save(call(key))
    with django_assert_num_queries(5):
        reconciliation("openai", DAY, DAY)

    plan = str(_sums_of_calls("openai", DAY).explain())  # type: ignore[attr-defined]
    if connection.vendor == "sqlite":
        assert "SEARCH llm_usage USING INDEX sqlite_autoindex_llm_usage_1 (id>? AND id<?)" in plan


def test_the_table_says_ours_theirs_difference_and_why(key: ApiKey) -> None:
    save(call(key, cost=Decimal("0.012")))
    import_openai()
    out = StringIO()

    call_command("reconcile", "openai", "--from", "2026-11-01", "--to", "2026-11-01", stdout=out)

    lines = out.getvalue().splitlines()
    assert lines[0].split("  ")[0] == "day (UTC)"
    assert lines[1].split()[:7] == ["2026-11-01", DATED, "2,650", "2,650", "0.012", "0.016", "+0.004"]
    assert lines[1].endswith("charges 0.004 USD more than our price list says.")
    assert lines[-1] == ("Total: ours 0.012 USD, theirs 0.026 USD, difference +0.014; 2 of 2 lines differ.")


def test_the_table_may_leave_out_what_agrees(key: ApiKey) -> None:
    save(call(key))
    import_openai()
    out = StringIO()

    call_command("reconcile", "openai", "--from", "2026-11-01", "--to", "2026-11-01", "--differences", stdout=out)

    assert DATED not in out.getvalue()
    assert "1 of 2 lines differ" in out.getvalue()


def test_a_span_that_is_none_is_a_sentence() -> None:
    with pytest.raises(CommandError, match="is not a span of 1 to 366 days"):
        call_command("reconcile", "openai", "--from", "2026-11-02", "--to", "2026-11-01")
