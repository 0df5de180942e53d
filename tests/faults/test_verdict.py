"""The verdict finds each way in which books can be wrong: one that sees nothing would pass everything."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any
from uuid import UUID

import pytest

from llm.models import Usage
from llm.money import pico_to_usd
from tests.fakes import Counts, Entry
from tests.faults import tariff
from tests.faults.load import Outcome
from tests.faults.verdict import Verdict, compare

COUNTS = Counts(prompt_tokens=1009, completion_tokens=27, cache_read_tokens=1000, reasoning_tokens=7)
ANSWERED = Outcome("m-1", is_stream=False, status=200, is_complete=True)
BROKEN_OFF = Outcome("m-1", is_stream=False, error="ConnectionResetError")
FIGURES = ("missing", "doubled", "wrong", "repeated", "leaked_holds", "open_rows", "unexplained_500s")


def entry(*, status: int = 200, counts: Counts = COUNTS, usage: dict[str, Any] | None = None) -> Entry:
    blank: dict[str, Any] = {field.name: "" for field in fields(Entry)} | {"serial": 1}
    sent = {"prompt_tokens": counts.prompt_tokens, "completion_tokens": counts.completion_tokens}
    return Entry(**{**blank, "model": "m-1", "status": status, "counts": counts, "usage": usage or sent})


def row(*, status: str = "settled", source: str = "reported", outcome: str = "ok", counts: Counts = COUNTS) -> Usage:
    tokens = {field.name: getattr(counts, field.name) for field in fields(Counts)}
    made = Usage(id=UUID(int=1), model="m-1", status=status, usage_source=source, outcome=outcome, **tokens)
    made.cost = pico_to_usd(tariff.cost_pico(made))
    return made


def void() -> Usage:
    return row(status="void", source="none", outcome="not_sent", counts=Counts())


def refused() -> Usage:
    return row(source="none", outcome="upstream_failed", counts=Counts())


def estimate() -> Usage:
    return row(status="estimated", source="estimated", counts=replace(COUNTS, completion_tokens=9))


def opened() -> Usage:
    made = row(status="open", source="none", outcome="pending", counts=Counts())
    made.cost = None
    return made


def told(verdict: Verdict) -> dict[str, int]:
    return {name: count for name in FIGURES if (count := getattr(verdict, name))}


def test_an_exact_row_of_an_answered_call_is_right() -> None:
    verdict = compare([entry()], [row()], [ANSWERED])
    assert (told(verdict), verdict.explanations, verdict.is_exact) == ({}, [], True)


def test_each_try_that_was_refused_and_the_one_that_was_not_have_their_rows() -> None:
    entries = [entry(status=503, counts=Counts()), entry()]
    assert compare(entries, [refused(), row()], [ANSWERED]).is_exact


def test_a_served_call_without_a_row_is_missing() -> None:
    assert told(compare([entry()], [], [BROKEN_OFF])) == {"missing": 1}


def test_a_served_call_whose_row_is_void_is_missing() -> None:
    assert told(compare([entry()], [void()], [BROKEN_OFF])) == {"missing": 1}


def test_a_second_exact_row_is_doubled() -> None:
    assert told(compare([entry()], [row(), row()], [BROKEN_OFF])) == {"doubled": 1}


def test_an_exact_row_of_a_call_that_nobody_served_is_doubled() -> None:
    assert told(compare([], [row()], [BROKEN_OFF])) == {"doubled": 1}


def test_other_figures_than_the_ledgers_are_wrong() -> None:
    other = row(counts=replace(COUNTS, completion_tokens=28))
    assert told(compare([entry()], [other], [BROKEN_OFF])) == {"wrong": 1}


@pytest.mark.parametrize("pico", [tariff.cost_pico(COUNTS) + 1, None])
def test_another_cost_than_that_of_the_tokens_is_wrong(pico: int | None) -> None:
    other = row()
    other.cost = None if pico is None else pico_to_usd(pico)
    assert told(compare([entry()], [other], [ANSWERED])) == {"wrong": 1}


def test_an_estimate_is_wrong_only_where_the_caller_has_a_complete_and_honest_answer() -> None:
    assert told(compare([entry()], [estimate()], [ANSWERED])) == {"wrong": 1}
    assert compare([entry()], [estimate()], [BROKEN_OFF]).is_exact
    assert compare([entry(usage={"prompt_tokens": 10**15})], [estimate()], [ANSWERED]).is_exact


def test_an_estimate_of_a_call_that_never_arrived_is_told_and_not_blamed() -> None:
    verdict = compare([], [estimate()], [BROKEN_OFF])
    assert (verdict.unsent, verdict.is_exact) == (1, True)


def test_who_was_told_that_nothing_was_sent_is_not_charged() -> None:
    assert told(compare([], [estimate()], [replace(BROKEN_OFF, status=503)])) == {"wrong": 1}
    assert compare([], [void()], [replace(BROKEN_OFF, status=503)]).is_exact


def test_a_request_with_a_key_is_not_sent_again_after_one_that_may_have_worked() -> None:
    keyed = replace(ANSWERED, has_key=True)
    repeated = replace(keyed, status=409, is_complete=False)
    assert compare(
        [replace(entry(status=503, counts=Counts()), serial=1), replace(entry(), serial=2)],
        [refused(), row()],
        [keyed, repeated],
    ).is_exact
    twice = [replace(entry(), serial=1), replace(entry(), serial=2)]
    assert told(compare(twice, [row(), row()], [replace(BROKEN_OFF, has_key=True)])) == {"repeated": 1}
    assert compare(twice, [row(), row()], [BROKEN_OFF]).is_exact
    after_an_error = [replace(entry(status=500, counts=Counts()), serial=1), replace(entry(), serial=2)]
    assert told(compare(after_an_error, [refused(), row()], [keyed])) == {"repeated": 1}


def test_open_rows_and_holds_that_are_left_and_unexplained_errors_are_told() -> None:
    assert told(compare([entry()], [opened()], [BROKEN_OFF])) == {"open_rows": 1}
    assert told(compare([], [], [], held=5)) == {"leaked_holds": 5}
    assert told(compare([], [], [replace(BROKEN_OFF, status=500)])) == {"unexplained_500s": 1}
    assert told(compare([], [], [replace(BROKEN_OFF, status=504)])) == {}
