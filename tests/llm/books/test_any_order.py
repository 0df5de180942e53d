"""The books against a simple model of them: whatever happens to calls, in whatever order and however often."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import UUID

import pytest
from django.db import transaction
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from llm import models
from llm.audit import verify
from llm.books.adjusting import decide_call
from llm.books.batches.commit import commit_batch
from llm.books.figures import compute_figures
from llm.books.operations import CloseCall, Closed, Conflict, Failed, OpenCall, Opened, Refused, Result, void_close
from llm.books.spool.files import SUFFIX, SpoolFile
from llm.books.spool.replay import Replay
from llm.enums import CallOutcome, LimitMetric, LimitPer, UsageSource, UsageStatus
from llm.ids import uuid7
from llm.limits.admission import ReservationEstimate
from llm.limits.changes import set_limit
from llm.models import LimitWindow, Usage
from llm.types import TokenCounts
from tests.books import all_calls
from tests.llm.books.making import a_close, a_key, an_open

pytestmark = pytest.mark.slow

REQUESTS, TOKENS = 20, 500
COSTS_NOTHING = 0


@dataclass
class Call:
    """What the model knows of a call that is on the books. final: its figures, once they are known.

    doubt: figures of its row that nobody relies on, since it is lost or disputed.
    """

    held: int
    operation: OpenCall
    status: str = "open"
    is_lost: bool = False
    doubt: TokenCounts | None = None
    final: TokenCounts | None = None
    closes: list[CloseCall] = field(default_factory=list)

    @property
    def used(self) -> tuple[int, int]:
        """Of the limits of requests and of tokens."""
        if self.status in ("open", "void"):
            return 0, 0
        return 1, self.held if self.final is None else self.final.total_tokens

    @property
    def holds(self) -> tuple[int, int]:
        return (1, self.held) if self.status == "open" else (0, 0)


def lost(call_id: UUID) -> CloseCall:
    """As the reaper closes a call."""
    return CloseCall(
        id=call_id,
        status=UsageStatus.ESTIMATED,
        outcome=CallOutcome.LOST,
        usage_source=UsageSource.ESTIMATED,
        counts=TokenCounts(prompt_tokens=3),
        is_billable=False,
    )


class Books(RuleBasedStateMachine):
    calls = Bundle("calls")

    def __init__(self) -> None:
        super().__init__()
        self._stack = ExitStack()
        # As in a test of Django's own: the check's reading may be the outermost block inside it.
        atomic = transaction.atomic()
        atomic._from_testcase = True  # type: ignore[attr-defined]
        self._stack.enter_context(atomic)
        self._folder = Path(self._stack.enter_context(TemporaryDirectory()))
        self._model: dict[UUID, Call] = {}
        self._has_decided = False
        """People may say that a call has used more than it held."""

    @initialize()
    def begin(self) -> None:
        self._key = a_key()
        set_limit(self._key.account, None, LimitMetric.REQUESTS, LimitPer.TOTAL, REQUESTS, None)
        set_limit(self._key.account, self._key, LimitMetric.TOKENS, LimitPer.TOTAL, TOKENS, None)

    def teardown(self) -> None:
        try:
            assert verify().sentences == []
        finally:
            transaction.set_rollback(True)
            self._stack.close()

    # --- What happens -------------------------------------------------------------------------------------------------

    @rule(target=calls, tokens=st.lists(st.integers(1, 60), min_size=1, max_size=4))
    def open_calls(self, tokens: list[int]) -> UUID:
        """Several in one batch: each sees what those before it hold."""
        operations = [self._asking(each) for each in tokens]
        results = commit_batch(operations)
        for operation, result, held in zip(operations, results, tokens, strict=True):
            requests, taken = self._taken()
            if requests + 1 <= REQUESTS and taken + held <= TOKENS:
                assert isinstance(result, Opened)
                self._model[operation.id] = Call(held, operation)
            else:
                assert isinstance(result, Refused)
        return operations[0].id

    @rule(target=calls, tokens=st.integers(1, 50), source=st.sampled_from(UsageStatus.values[1:]))
    def open_and_close_at_once(self, tokens: int, source: str) -> UUID:
        operation = self._asking(tokens)
        close = self._close(operation.id, UsageStatus(source), tokens)
        opened, closed = commit_batch([operation, close])
        if isinstance(opened, Opened):
            self._model[operation.id] = Call(tokens, operation)
            self._expect(close, closed)
        else:
            assert isinstance(closed, Conflict)
        return operation.id

    @rule(
        call_id=calls,
        status=st.sampled_from((UsageStatus.SETTLED, UsageStatus.ESTIMATED, UsageStatus.VOID)),
        tokens=st.integers(0, 60),
    )
    def close(self, call_id: UUID, status: UsageStatus, tokens: int) -> None:
        close = self._close(call_id, status, tokens)
        self._expect(close, *commit_batch([close]))

    @rule(call_id=calls, tokens=st.integers(0, 60))
    def close_with_absurd_figures(self, call_id: UUID, tokens: int) -> None:
        close = self._disputed(call_id, tokens)
        self._expect(close, *commit_batch([close]))

    @rule(call_id=calls, times=st.integers(1, 3))
    def repeat(self, call_id: UUID, times: int) -> None:
        for close in self._closes_of(call_id) * times:
            self._expect(close, *commit_batch([close]))

    @rule(call_ids=st.lists(calls, min_size=1, max_size=4), tokens=st.integers(0, 60))
    def close_many_in_one_batch(self, call_ids: list[UUID], tokens: int) -> None:
        """The same call may be among them more than once."""
        closes = [self._close(call_id, UsageStatus.SETTLED, tokens) for call_id in call_ids]
        for close, result in zip(closes, commit_batch(closes), strict=True):
            self._expect(close, result)

    @rule(call_id=calls)
    def reap(self, call_id: UUID) -> None:
        [result] = commit_batch([lost(call_id)])
        call = self._model.get(call_id)
        if call is not None and call.status == "open":
            assert result == Closed()
            call.status, call.is_lost, call.doubt = "estimated", True, TokenCounts(3, 0)

    @rule(call_id=calls, tokens=st.none() | st.integers(0, 60))
    def decide(self, call_id: UUID, tokens: int | None) -> None:
        counts = None if tokens is None else TokenCounts(tokens, 0)
        call = self._model.get(call_id)
        if call is not None and call.doubt is not None and call.final is None:
            decide_call(call_id, counts=counts, is_billable=True, reason="because", user=None)
            call.final = call.doubt if counts is None else counts
            self._has_decided = True
        elif call is not None:
            with pytest.raises(ValueError, match="still in flight" if call.status == "open" else "already known"):
                decide_call(call_id, counts=counts, is_billable=True, reason="because", user=None)

    @rule(
        call_ids=st.lists(calls, min_size=1, max_size=3),
        tokens=st.integers(0, 60),
        torn=st.integers(0, 30),
        is_absurd=st.booleans(),
    )
    def die_with_a_spool(self, call_ids: list[UUID], tokens: int, torn: int, is_absurd: bool) -> None:
        """Its last record may be torn; what is whole is replayed, maybe twice."""
        settled = [self._close(call_id, UsageStatus.SETTLED, tokens) for call_id in call_ids]
        closes = [self._disputed(call_id, tokens) for call_id in call_ids] if is_absurd else settled
        path = self._folder / f"{uuid7()}{SUFFIX}"
        file = SpoolFile.create(path)
        file.append(closes)
        file.close()
        if torn:
            path.write_bytes(path.read_bytes()[:-torn])
        content = path.read_bytes()
        whole = closes[: content.count(b"\n")]
        for _ in range(2):
            path.write_bytes(content)
            replay = Replay(SpoolFile.take_over(path))
            replay.step()
            replay.file.close()
            for close in whole:
                self._note(close)

    @rule(tokens=st.integers(1, 50), was_written=st.booleans())
    def lose_the_answer_to_an_open(self, tokens: int, was_written: bool) -> None:
        operation = self._asking(tokens)
        if was_written:
            commit_batch([operation])
        stillborn = replace(operation, is_stillborn=True, ask=None)
        assert [type(result) for result in commit_batch([stillborn, void_close(stillborn)])] == [Opened, Closed]
        self._model[operation.id] = Call(tokens, operation, status="void", closes=[void_close(stillborn)])

    @rule(call_id=calls)
    def open_again(self, call_id: UUID) -> None:
        """As by a batch whose answer was lost, and that is written once more."""
        if (call := self._model.get(call_id)) is not None:
            [result] = commit_batch([call.operation])
            assert isinstance(result, Failed | Refused), result

    @rule(call_id=calls)
    def doubt_an_open_too_late(self, call_id: UUID) -> None:
        """Whatever has become of the call meanwhile."""
        if (call := self._model.get(call_id)) is not None:
            stillborn = replace(call.operation, is_stillborn=True, ask=None)
            void = void_close(stillborn)
            _, closed = commit_batch([stillborn, void])
            self._expect(void, closed)

    # --- What must hold -----------------------------------------------------------------------------------------------

    @invariant()
    def limits_are_what_calls_hold_and_use(self) -> None:
        windows = LimitWindow.objects.select_related("limit")
        found = {window.governing_limit.metric: (window.used, window.held) for window in windows}
        for number, (metric, amount) in enumerate(((LimitMetric.REQUESTS, REQUESTS), (LimitMetric.TOKENS, TOKENS))):
            used = sum(call.used[number] for call in self._model.values())
            held = sum(call.holds[number] for call in self._model.values())
            assert found.get(metric, (0, 0)) == (used, held)
            if not self._has_decided:
                assert used + held <= amount

    @invariant()
    def rows_are_the_models(self) -> None:
        rows = {call.pk: call for call in all_calls()}
        assert len(rows) == Usage.objects.count() + models.OpenCall.objects.count()
        assert {pk: row.status for pk, row in rows.items()} == {pk: call.status for pk, call in self._model.items()}
        for pk, call in self._model.items():
            if call.final is not None:
                assert compute_figures(rows[pk], rows[pk].adjustments.order_by("id")).counts == call.final

    # --- The model ----------------------------------------------------------------------------------------------------

    def _asking(self, tokens: int) -> OpenCall:
        ask = ReservationEstimate(requests=1, input_tokens=tokens - 1, output_tokens=1)
        return an_open(self._key, ask=lambda: ask)

    def _close(self, call_id: UUID, status: UsageStatus, tokens: int) -> CloseCall:
        """No more than was held, as an upstream that keeps to its maximum."""
        call = self._model.get(call_id)
        most = min(tokens, call.held) if call else tokens
        if status is UsageStatus.VOID:
            return a_close(
                call_id,
                status=status,
                outcome=CallOutcome.CLIENT_GONE,
                usage_source=UsageSource.NONE,
                counts=TokenCounts(),
                cost_pico=COSTS_NOTHING,
            )
        cost = COSTS_NOTHING if most == 0 else None
        return a_close(call_id, status=status, counts=TokenCounts(most, 0), cost_pico=cost)

    def _disputed(self, call_id: UUID, tokens: int) -> CloseCall:
        close = self._close(call_id, UsageStatus.ESTIMATED, tokens)
        return replace(close, is_disputed=True, is_billable=False, disputed_usage={"prompt_tokens": -tokens})

    def _closes_of(self, call_id: UUID) -> list[CloseCall]:
        call = self._model.get(call_id)
        return list(call.closes) if call else []

    def _taken(self) -> tuple[int, int]:
        calls: Iterable[Call] = self._model.values()
        return (
            sum(call.used[0] + call.holds[0] for call in calls),
            sum(call.used[1] + call.holds[1] for call in calls),
        )

    def _expect(self, close: CloseCall, result: Result) -> None:
        assert type(result) is (Closed if self._note(close) else Conflict), (close, result)

    def _note(self, close: CloseCall) -> bool:
        """Whether the books should take it, or have taken it before."""
        call = self._model.get(close.id)
        if call is None:
            return False
        if call.status == "open":
            call.status = close.status.value
            call.doubt = close.counts if close.is_disputed else None
        elif call.closes or not call.is_lost or close.is_disputed:
            return close in call.closes
        if not close.is_disputed:
            call.final = close.counts
        call.closes.append(close)
        return True


@pytest.mark.django_db
def test_in_any_order_every_call_is_on_the_books_once_and_limits_hold() -> None:
    run_state_machine_as_test(
        Books,
        settings=settings(
            max_examples=15,
            stateful_step_count=25,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )
