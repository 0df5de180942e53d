"""Who may still call: arithmetic over windows, without a database."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm.enums import LimitMetric, LimitPer
from llm.limits.admission import Admission, BindingWindow, LimitRow, ReservationEstimate, Window, admit, units_used
from llm.limits.periods import period_of

NOW = datetime(2026, 11, 24, 12, 0, 30, tzinfo=UTC)
MONTH = datetime(2026, 11, 1, tzinfo=UTC)
PICO_PER_MICRO = 10**6


def a_limit(metric: LimitMetric, amount: int, **changes: Any) -> LimitRow:
    limit = LimitRow(1, 1, None, metric, LimitPer.MONTH, amount, None)
    return replace(limit, **changes)


def a_window(metric: LimitMetric, amount: int, *, used: int = 0, held: int = 0, **changes: Any) -> Window:
    return Window(7, a_limit(metric, amount, **changes), MONTH, used, held, is_announced=False)


def ask(**changes: Any) -> ReservationEstimate:
    return ReservationEstimate(
        requests=1, input_tokens=100, output_tokens=50, input_pico=0, output_token_pico=0
    )._replace(**changes)


def decide(windows: list[Window], asked: ReservationEstimate) -> Admission:
    binding = [BindingWindow(window, period_of(window.limit.per, "UTC", NOW).ends_at) for window in windows]
    return admit(binding, asked, now=NOW)


def kind_of(admission: Admission) -> str | None:
    return None if admission.exceeded is None else admission.exceeded.kind


# --- Spent, busy, too large -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("used", "held", "kind"),
    [
        (0, 0, None),
        (9, 0, None),
        (0, 9, None),
        (8, 1, None),
        (10, 0, "spent"),
        (10, 5, "spent"),
        (0, 10, "busy"),
        (9, 1, "busy"),
        (11, 0, "spent"),
    ],
)
def test_what_is_used_is_final_and_what_is_held_is_not(used: int, held: int, kind: str | None) -> None:
    window = a_window(LimitMetric.REQUESTS, 10, used=used, held=held)
    admission = decide([window], ask())
    assert kind_of(admission) == kind
    assert window.added_held == (1 if kind is None else 0)
    assert admission.holds == (((7, 1),) if kind is None else ())


def test_a_limit_of_nothing_is_spent_from_the_start() -> None:
    assert kind_of(decide([a_window(LimitMetric.REQUESTS, 0)], ask())) == "spent"
    assert kind_of(decide([a_window(LimitMetric.TOKENS, 0)], ask())) == "spent"


def test_another_call_of_a_request_holds_no_request_even_where_none_is_left() -> None:
    admission = decide([a_window(LimitMetric.REQUESTS, 1, used=1)], ask(requests=0))
    assert (kind_of(admission), admission.holds) == (None, ((7, 0),))


def test_of_several_limits_all_must_hold_it_or_none_does() -> None:
    roomy, full = a_window(LimitMetric.TOKENS, 1000), a_window(LimitMetric.REQUESTS, 1, used=1)
    admission = decide([roomy, full], ask())
    assert kind_of(admission) == "spent"
    assert (roomy.held, full.held, admission.holds) == (0, 0, ())


def test_a_refusal_says_which_limit_and_when_it_begins_anew() -> None:
    window = a_window(LimitMetric.REQUESTS, 1, used=1, per=LimitPer.MINUTE, api_key_id=3)
    exceeded = decide([window], ask()).exceeded
    assert exceeded is not None
    assert (exceeded.metric, exceeded.per, exceeded.amount) == (LimitMetric.REQUESTS, LimitPer.MINUTE, 1)
    assert (exceeded.is_of_key, exceeded.resets_in_s) == (True, 30.0)


def test_a_limit_in_all_never_begins_anew() -> None:
    exceeded = decide([a_window(LimitMetric.REQUESTS, 0, per=LimitPer.TOTAL)], ask()).exceeded
    assert exceeded is not None
    assert exceeded.resets_in_s is None


# --- How much a call may use ------------------------------------------------------------------------------------------


def test_tokens_are_held_for_every_choice() -> None:
    assert decide([a_window(LimitMetric.TOKENS, 10_000)], ask(choices=3)).holds == ((7, 100 + 3 * 50),)


def test_money_is_held_rounded_up() -> None:
    asked = ask(input_pico=1, output_token_pico=2 * PICO_PER_MICRO)
    assert decide([a_window(LimitMetric.COST, 10_000)], asked).holds == ((7, 101),)


def test_a_call_that_asks_for_more_than_a_whole_limit_gets_what_fits_into_it() -> None:
    admission = decide([a_window(LimitMetric.TOKENS, 1000)], ask(output_tokens=5000, choices=2))
    assert (admission.max_output_tokens, admission.holds) == (450, ((7, 1000),))


def test_of_two_limits_the_tighter_one_lowers_the_maximum_for_both() -> None:
    tokens = a_window(LimitMetric.TOKENS, 100_000)
    money = replace(a_window(LimitMetric.COST, 40), id=8)
    asked = ask(output_tokens=500, input_pico=10 * PICO_PER_MICRO, output_token_pico=PICO_PER_MICRO)
    admission = decide([tokens, money], asked)
    assert (admission.max_output_tokens, admission.holds) == (30, ((7, 130), (8, 40)))


def test_a_maximum_is_lowered_by_the_whole_limit_and_not_by_what_is_left_of_it() -> None:
    admission = decide([a_window(LimitMetric.TOKENS, 1000, used=900)], ask(output_tokens=5000))
    assert kind_of(admission) == "spent"


def test_a_prompt_that_fills_the_whole_limit_is_too_large() -> None:
    assert kind_of(decide([a_window(LimitMetric.TOKENS, 100)], ask())) == "too_large"


def test_without_any_maximum_a_limit_sets_one() -> None:
    admission = decide([a_window(LimitMetric.TOKENS, 10_000)], ask(output_tokens=None, unstated_output_tokens=200))
    assert (admission.max_output_tokens, admission.holds) == (200, ((7, 300),))


@pytest.mark.parametrize(
    ("metric", "amount", "changes", "maximum"),
    [
        (LimitMetric.TOKENS, 10_000, {}, 1_000),
        (LimitMetric.TOKENS, 10_000, {"choices": 4}, 250),
        (LimitMetric.TOKENS, 1_000_000, {}, 16_000),
        # A tenth, unless the prompt leaves less than that.
        (LimitMetric.TOKENS, 105, {}, 5),
        (LimitMetric.TOKENS, 110, {}, 10),
        (LimitMetric.COST, 10_000, {"output_token_pico": 2 * PICO_PER_MICRO}, 500),
        (LimitMetric.COST, 10_000, {"output_token_pico": PICO_PER_MICRO, "choices": 2}, 500),
        # The window is bound enough, if it is no more than a tenth.
        (LimitMetric.TOKENS, 400_000, {"output_tokens": 40_000}, None),
        (LimitMetric.TOKENS, 399_990, {"output_tokens": 40_000}, 16_000),
    ],
)
def test_who_asks_for_no_maximum_gets_a_tenth_of_a_limit_at_most(
    metric: LimitMetric, amount: int, changes: dict[str, Any], maximum: int | None
) -> None:
    asked = ask(**{"output_tokens": None, "is_stated": False, "unstated_output_tokens": 16_000, **changes})
    admission = decide([a_window(metric, amount)], asked)
    assert (kind_of(admission), admission.max_output_tokens) == (None, maximum)


def test_a_maximum_that_nobody_would_take_is_not_set() -> None:
    small = decide([a_window(LimitMetric.TOKENS, 1000)], ask(output_tokens=5000, takes_maximum=False))
    assert kind_of(small) == "too_large"
    assert small.exceeded is not None
    assert (small.exceeded.max_output_tokens, small.exceeded.takes_maximum) == (None, False)
    large = decide([a_window(LimitMetric.TOKENS, 10_000)], ask(output_tokens=5000, takes_maximum=False))
    assert (large.max_output_tokens, large.holds) == (None, ((7, 5100),))
    unknown = decide([a_window(LimitMetric.TOKENS, 10_000)], ask(output_tokens=None, takes_maximum=False))
    assert kind_of(unknown) == "unbounded"


def test_a_limit_of_requests_leaves_the_maximum_alone() -> None:
    admission = decide([a_window(LimitMetric.REQUESTS, 10)], ask(output_tokens=None))
    assert (kind_of(admission), admission.max_output_tokens) == (None, None)


@pytest.mark.parametrize(
    ("metric", "changes"),
    [
        (LimitMetric.TOKENS, {"input_tokens": None}),
        (LimitMetric.COST, {"input_pico": None, "output_token_pico": None, "why_unpriced": "no price is known"}),
    ],
)
def test_what_nobody_can_bound_does_not_fit_into_any_limit(metric: LimitMetric, changes: dict[str, Any]) -> None:
    admission = decide([a_window(metric, 10**9)], ask(**changes))
    assert kind_of(admission) == "unbounded"
    assert admission.exceeded is not None
    assert admission.exceeded.why == changes.get("why_unpriced", "")


def test_a_free_model_fits_into_a_limit_of_money_that_is_spent() -> None:
    assert decide([a_window(LimitMetric.COST, 10, used=10)], ask(output_tokens=None)).holds == ((7, 0),)


def test_what_is_left_counts_what_was_just_taken() -> None:
    window = a_window(LimitMetric.TOKENS, 1000, used=300, held=200)
    [state] = decide([window], ask()).limits
    assert (state.amount, state.remaining) == (1000, 350)
    assert state.resets_at == MONTH + timedelta(days=30)


# --- Never above the limit --------------------------------------------------------------------------------------------

_ASKS = st.builds(
    ReservationEstimate,
    requests=st.integers(0, 1),
    input_tokens=st.none() | st.integers(0, 400),
    output_tokens=st.none() | st.integers(1, 2000),
    choices=st.integers(1, 4),
    takes_maximum=st.booleans(),
    is_stated=st.booleans(),
    unstated_output_tokens=st.integers(1, 500),
    input_pico=st.integers(0, 300 * PICO_PER_MICRO),
    output_token_pico=st.integers(0, 3 * PICO_PER_MICRO),
)


@pytest.mark.slow
@given(
    amounts=st.tuples(*[st.integers(0, 1000)] * 3),
    asks=st.lists(st.tuples(_ASKS, st.floats(0, 1)), max_size=30),
)
def test_used_and_held_never_exceed_a_limit_and_what_fits_is_never_refused(
    amounts: tuple[int, int, int], asks: list[tuple[ReservationEstimate, float]]
) -> None:
    metrics = (LimitMetric.REQUESTS, LimitMetric.TOKENS, LimitMetric.COST)
    windows = [
        replace(a_window(metric, amount), id=number)
        for number, (metric, amount) in enumerate(zip(metrics, amounts, strict=True))
    ]
    open_holds: list[tuple[tuple[int, int], ...]] = []
    for asked, share in asks:
        before = [(window.used, window.held) for window in windows]
        admission = decide(windows, asked)
        if admission.exceeded is None:
            open_holds.append(admission.holds)
            assert [window.held - held for window, (_, held) in zip(windows, before, strict=True)] == [
                units for _, units in admission.holds
            ]
        else:
            assert [(window.used, window.held) for window in windows] == before
            culprit = next(window for window in windows if window.limit.metric is admission.exceeded.metric)
            assert admission.exceeded.kind != "busy" or culprit.held > 0
        for window in windows:
            assert window.used + window.held <= window.limit.amount
        if share > 0.5 and open_holds:
            for number, units in open_holds.pop(0):
                windows[number].add(used=int(units * share), held=-units)


@pytest.mark.parametrize(
    ("metric", "changes", "used"),
    [
        (LimitMetric.TOKENS, {}, 13),
        (LimitMetric.REQUESTS, {}, 99),
        (LimitMetric.COST, {}, 3),
        (LimitMetric.COST, {"cost_pico": None}, 99),
        (LimitMetric.COST, {"cost_pico": 0}, 0),
        (LimitMetric.TOKENS, {"is_known": False}, 99),
        (LimitMetric.COST, {"is_known": False}, 99),
        (LimitMetric.TOKENS, {"status": "void"}, 0),
        (LimitMetric.REQUESTS, {"status": "void"}, 0),
    ],
)
def test_a_closed_call_has_used_what_is_known_and_else_what_it_held(
    metric: LimitMetric, changes: dict[str, Any], used: int
) -> None:
    closed: dict[str, Any] = {"status": "settled", "total_tokens": 13, "cost_pico": 2 * PICO_PER_MICRO + 1}
    assert units_used(metric, 99, **{"is_known": True, **closed, **changes}) == used
