"""Idempotency keys in a batch: who claims one, who is refused for it, and when it is free again."""

from __future__ import annotations

import asyncio
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings

from llm.books import claims
from llm.books.batches.commit import commit_batch
from llm.books.claims import prune_claims
from llm.books.operations import (
    Claim,
    CloseCall,
    Closed,
    OpenCall,
    Opened,
    Refused,
    Repeated,
    Result,
    Stale,
    void_close,
)
from llm.books.spool.records import encode_line, read_lines
from llm.books.writer.backlog import Backlog
from llm.db.prepared import prepare_statements_of_this_thread
from llm.enums import CallOutcome, LimitMetric, LimitPer, UsageSource, UsageStatus
from llm.ids import uuid7
from llm.keys import create_key, revoke_key
from llm.limits.admission import ReservationEstimate
from llm.limits.changes import set_limit
from llm.models import ApiKey, CatalogVersion, IdempotencyKey, LimitWindow, Usage
from llm.types import TokenCounts
from tests.books import all_calls
from tests.databases import only_on_postgresql
from tests.llm.books.making import a_close, a_key, an_open
from tests.threads import to_thread

pytestmark = pytest.mark.django_db

SAME, OTHER = Claim("a" * 64, "c" * 64), Claim("b" * 64, "c" * 64)


def a_claiming_open(key: ApiKey, claim: Claim = SAME, **changes: object) -> OpenCall:
    call_id = uuid7()
    return an_open(key, **{"id": call_id, "request_id": call_id, "claim": claim, **changes})


def an_undone_close(opened: OpenCall) -> CloseCall:
    return a_close(
        opened.id,
        outcome=CallOutcome.UPSTREAM_FAILED,
        usage_source=UsageSource.NONE,
        counts=TokenCounts(),
        cost_pico=0,
        releases_claim=opened.claim is not None,
    )


def commit(*operations: OpenCall | CloseCall) -> Result:
    """What comes of the last one."""
    return commit_batch(operations)[-1]


def claimed_by() -> list[object]:
    return list(IdempotencyKey.objects.order_by("pk").values_list("call_id", flat=True))


# --- Claims -----------------------------------------------------------------------------------------------------------


def test_a_claim_is_written_with_its_call() -> None:
    key = a_key()
    opened = a_claiming_open(key)
    assert isinstance(commit(opened), Opened)
    [claim], [row] = IdempotencyKey.objects.all(), all_calls()
    assert (claim.api_key_id, claim.key_hash, claim.content_hash) == (key.pk, SAME.key_hash, SAME.content_hash)
    assert (claim.call_id, claim.claimed_at) == (row.pk, row.opened_at)


def test_a_repeat_opens_nothing_while_the_first_call_is_in_flight_and_after_it() -> None:
    key = a_key()
    first = a_claiming_open(key)
    commit(first)
    assert commit(a_claiming_open(key)) == Repeated(first.id, is_same=True, is_in_flight=True)
    commit(a_close(first.id))
    assert commit(a_claiming_open(key)) == Repeated(first.id, is_same=True, is_in_flight=False)
    assert claimed_by() == [first.id]
    assert len(all_calls()) == 1


def test_another_body_with_the_same_key_is_told_from_a_repeat() -> None:
    key = a_key()
    first = a_claiming_open(key)
    commit(first)
    other = replace(SAME, content_hash="d" * 64)
    assert commit(a_claiming_open(key, other)) == Repeated(first.id, is_same=False, is_in_flight=True)
    assert len(all_calls()) == 1


def test_other_keys_are_others() -> None:
    """The same text of another API key, and another text of the same one; also in one batch."""
    key = a_key()
    another, _ = create_key(key.account, name="another")
    calls = [a_claiming_open(key), a_claiming_open(another), a_claiming_open(key, OTHER)]
    assert {type(result) for result in commit_batch(calls)} == {Opened}
    assert claimed_by() == [each.id for each in calls]
    repeats = [a_claiming_open(another, OTHER), a_claiming_open(another), a_claiming_open(key, OTHER)]
    results = commit_batch(repeats)
    assert isinstance(results[0], Opened)
    assert [each.call_id for each in results[1:] if isinstance(each, Repeated)] == [calls[1].id, calls[2].id]


def test_of_two_in_one_batch_the_first_is_opened() -> None:
    key = a_key()
    first, second = a_claiming_open(key), a_claiming_open(key)
    results = commit_batch([first, second])
    assert isinstance(results[0], Opened)
    assert results[1] == Repeated(first.id, is_same=True, is_in_flight=True)
    assert claimed_by() == [first.id]


def test_a_call_that_is_not_opened_claims_nothing() -> None:
    key = a_key()
    set_limit(key.account, None, LimitMetric.REQUESTS, LimitPer.TOTAL, 1, None)

    def ask() -> ReservationEstimate:
        return ReservationEstimate(requests=1, input_tokens=1, output_tokens=1)

    assert isinstance(commit(a_claiming_open(key, ask=ask, catalog_version=7)), Stale)
    commit(an_open(key, ask=ask))
    assert isinstance(commit(a_claiming_open(key, ask=ask)), Refused)
    revoke_key(key)
    assert commit(a_claiming_open(key)) == Refused("revoked")
    assert claimed_by() == []


def test_a_repeat_counts_and_reserves_nothing() -> None:
    key = a_key()
    set_limit(key.account, None, LimitMetric.REQUESTS, LimitPer.TOTAL, 5, None)

    def ask() -> ReservationEstimate:
        return ReservationEstimate(requests=1, input_tokens=1, output_tokens=1)

    commit(a_claiming_open(key, ask=ask))
    for _ in range(3):
        assert isinstance(commit(a_claiming_open(key, ask=ask)), Repeated)
    assert [(window.used, window.held) for window in LimitWindow.objects.all()] == [(0, 1)]


def test_a_repeat_is_told_so_whatever_has_become_of_its_model() -> None:
    key = a_key()
    first = a_claiming_open(key)
    commit(first)
    CatalogVersion.objects.update_or_create(pk=1, defaults={"version": 9})
    assert isinstance(commit(a_claiming_open(key)), Repeated)


def test_an_open_that_is_written_again_is_no_repeat_of_itself() -> None:
    key = a_key()
    call = a_claiming_open(key)
    commit(call)
    assert isinstance(commit(call), Opened)
    assert claimed_by() == [call.id]


# --- Released ---------------------------------------------------------------------------------------------------------


def test_a_call_that_surely_did_nothing_releases_its_key() -> None:
    key = a_key()
    first, second = a_claiming_open(key), a_claiming_open(key)
    commit(first)
    assert commit(an_undone_close(first)) == Closed()
    assert claimed_by() == []
    assert isinstance(commit(second), Opened)
    assert claimed_by() == [second.id]


def test_another_attempt_takes_the_claim_over_in_the_same_batch() -> None:
    key = a_key()
    first = a_claiming_open(key)
    second = a_claiming_open(key, request_id=first.request_id, attempt=2)
    commit(first)
    assert isinstance(commit(an_undone_close(first), second), Opened)
    assert claimed_by() == [second.id]
    assert commit(a_claiming_open(key)) == Repeated(second.id, is_same=True, is_in_flight=True)


def test_an_attempt_that_is_refused_leaves_the_key_released() -> None:
    key = a_key()
    first = a_claiming_open(key)
    commit(first)
    assert isinstance(commit(an_undone_close(first), a_claiming_open(key, catalog_version=7)), Stale)
    assert claimed_by() == []


def test_a_request_whose_first_call_may_have_worked_is_in_flight_until_its_last_one_has_ended() -> None:
    key = a_key()
    first = a_claiming_open(key)
    second = an_open(key, request_id=first.request_id, attempt=2)
    commit(first)
    commit(a_close(first.id, status=UsageStatus.ESTIMATED), second)
    assert commit(a_claiming_open(key)) == Repeated(first.id, is_same=True, is_in_flight=True)
    commit(an_undone_close(second))
    assert commit(a_claiming_open(key)) == Repeated(first.id, is_same=True, is_in_flight=False)


def test_a_release_that_comes_again_takes_no_later_claim() -> None:
    key = a_key()
    first, second = a_claiming_open(key), a_claiming_open(key)
    commit(first)
    commit(an_undone_close(first))
    commit(second)
    assert commit(an_undone_close(first)) == Closed(is_new=False)
    assert claimed_by() == [second.id]


def test_a_settlement_that_comes_after_the_reaper_releases_the_key_too() -> None:
    key = a_key()
    call = a_claiming_open(key)
    commit(call)
    commit(a_close(call.id, status=UsageStatus.ESTIMATED, outcome=CallOutcome.LOST, is_billable=False))
    assert isinstance(commit(a_claiming_open(key)), Repeated)
    assert commit(an_undone_close(call)) == Closed()
    assert claimed_by() == []


def test_an_open_and_its_void_in_one_batch_claim_nothing() -> None:
    key = a_key()
    call, next_call = a_claiming_open(key), a_claiming_open(key)
    results = commit_batch([call, void_close(call), next_call])
    assert [type(each) for each in results] == [Opened, Closed, Opened]
    assert claimed_by() == [next_call.id]


@pytest.mark.parametrize("was_written", [False, True])
def test_an_open_that_nobody_knows_of_is_voided_and_its_key_released(tmp_path: Path, was_written: bool) -> None:
    key = a_key()
    call = a_claiming_open(key)
    if was_written:
        commit(call)
    backlog = Backlog(tmp_path)
    backlog.prepare()
    backlog.doubt([call])
    backlog.write_some()
    backlog.close()
    assert claimed_by() == []
    assert [row.status for row in Usage.objects.all()] == [UsageStatus.VOID]


def test_the_spool_keeps_what_a_close_releases() -> None:
    key = a_key()
    call = a_claiming_open(key)
    released, kept = an_undone_close(call), a_close(call.id)
    assert [close for close, _ in read_lines(encode_line(released) + encode_line(kept))] == [released, kept]
    # Earlier releases can still read what is of no concern to them.
    assert b"releases_claim" not in encode_line(kept)


# --- Expired ----------------------------------------------------------------------------------------------------------


def age_claims(age: timedelta) -> None:
    IdempotencyKey.objects.update(claimed_at=datetime.now(UTC) - age)


def test_a_claim_that_is_too_old_counts_as_absent(settings: Settings) -> None:
    settings.LLM_IDEMPOTENCY_HOURS = 2
    key = a_key()
    first, second = a_claiming_open(key), a_claiming_open(key)
    commit(first)
    commit(a_close(first.id))
    age_claims(timedelta(minutes=119))
    assert isinstance(commit(a_claiming_open(key)), Repeated)
    age_claims(timedelta(minutes=121))
    assert isinstance(commit(second), Opened)
    assert claimed_by() == [second.id]
    assert isinstance(commit(a_claiming_open(key)), Repeated)


def test_a_claim_does_not_expire_while_a_call_of_its_request_is_open(settings: Settings) -> None:
    settings.LLM_IDEMPOTENCY_HOURS = 2
    key = a_key()
    first = a_claiming_open(key)
    commit(first)
    age_claims(timedelta(hours=30))
    assert commit(a_claiming_open(key)) == Repeated(first.id, is_same=True, is_in_flight=True)
    # A later attempt, after one that may have worked: the claim stays with the first.
    retry = an_open(key, id=uuid7(), request_id=first.id, attempt=2)
    commit(a_close(first.id), retry)
    assert commit(a_claiming_open(key)) == Repeated(first.id, is_same=True, is_in_flight=True)
    assert prune_claims(now=datetime.now(UTC)) == 0
    commit(a_close(retry.id))
    assert isinstance(commit(a_claiming_open(key)), Opened)


def test_old_claims_are_pruned_piece_by_piece(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.LLM_IDEMPOTENCY_HOURS = 2
    monkeypatch.setattr(claims, "PRUNED_AT_ONCE", 2)
    monkeypatch.setattr(claims, "PAUSE_SECONDS", 0)
    key = a_key()
    calls = [a_claiming_open(key, Claim(f"{number:064}", "c" * 64)) for number in range(6)]
    commit_batch(calls)
    commit_batch([a_close(each.id) for each in calls])
    IdempotencyKey.objects.exclude(call_id=calls[3].id).update(claimed_at=datetime.now(UTC) - timedelta(hours=3))
    assert prune_claims(now=datetime.now(UTC)) == 5
    assert claimed_by() == [calls[3].id]
    assert prune_claims(now=datetime.now(UTC)) == 0


# --- What it costs ----------------------------------------------------------------------------------------------------


def sql_of(*operations: OpenCall | CloseCall) -> list[str]:
    with CaptureQueriesContext(connection) as queries:
        commit_batch(operations)
    return [each["sql"] for each in queries]


def test_requests_without_a_key_never_touch_the_table() -> None:
    key = a_key()
    call = an_open(key)
    assert not [sql for sql in sql_of(call) + sql_of(an_undone_close(call)) if claims.TABLE in sql]


def test_a_batch_with_keys_takes_as_many_statements_for_one_as_for_many() -> None:
    key = a_key()
    counts = []
    for size in (1, 50):
        calls = [a_claiming_open(key, Claim(f"{size:032}{number:032}", "c" * 64)) for number in range(size)]
        counts.append((len(sql_of(*calls)), len(sql_of(*map(an_undone_close, calls)))))
    assert counts[0] == counts[1]


# --- At once ----------------------------------------------------------------------------------------------------------


@only_on_postgresql("SQLite has one writer at a time")
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("is_prepared", [False, True])
def test_of_many_at_once_one_is_opened(is_prepared: bool) -> None:
    key = a_key()
    rounds, threads = 15, 6
    barrier = threading.Barrier(threads)

    def work() -> list[Result]:
        if is_prepared:
            prepare_statements_of_this_thread()
        results = []
        for number in range(rounds):
            call = a_claiming_open(key, Claim(f"{number:064}", "c" * 64))
            barrier.wait(30)
            results.append(commit(call))
        return results

    async def run() -> list[list[Result]]:
        return await asyncio.gather(*(to_thread(work) for _ in range(threads)))

    by_thread = asyncio.run(run())
    for results in zip(*by_thread, strict=True):
        assert sorted(type(each).__name__ for each in results) == ["Opened"] + ["Repeated"] * (threads - 1)
    assert len(all_calls()) == IdempotencyKey.objects.count() == rounds


@only_on_postgresql("SQLite has one writer at a time")
@pytest.mark.django_db(transaction=True)
def test_batches_that_claim_and_release_the_same_keys_never_wait_in_a_circle() -> None:
    """Each closes what it has opened, and wants other keys in the same batch, in any order."""
    key = a_key()
    set_limit(key.account, None, LimitMetric.REQUESTS, LimitPer.DAY, 10**6, None)

    def ask() -> ReservationEstimate:
        return ReservationEstimate(requests=1, input_tokens=1, output_tokens=1)

    def work(seed: int) -> int:
        chosen = random.Random(seed)
        held: list[OpenCall] = []
        opened = 0
        try:
            for _ in range(20):
                wanted = [
                    a_claiming_open(key, Claim(f"{number:064}", "c" * 64), ask=ask)
                    for number in chosen.sample(range(6), 3)
                ]
                # `commit_batch`, not `commit_again`: a deadlock would fail the test.
                results = commit_batch([*map(an_undone_close, held), *wanted])[len(held) :]
                held = [each for each, result in zip(wanted, results, strict=True) if isinstance(result, Opened)]
                opened += len(held)
            commit_batch([*map(an_undone_close, held)])
        finally:
            connection.close()
        return opened

    with ThreadPoolExecutor(6) as pool:
        opened = sum(pool.map(work, range(6)))
    assert Usage.objects.filter(status=UsageStatus.SETTLED).count() == Usage.objects.count() == opened > 0
    assert IdempotencyKey.objects.count() == 0
