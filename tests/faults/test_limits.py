"""Many keys on small budgets at once: no limit is overspent, and nothing is refused that fits."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.db import connection

from llm.books.batches.commit import commit_batch
from llm.enums import LimitMetric, LimitPer
from llm.limits.admission import ReservationEstimate
from llm.limits.changes import set_limit
from llm.models import LimitWindow
from tests.fakes import FakeUpstream
from tests.faults import limits, tariff
from tests.faults.budgets import Units
from tests.faults.limit_watch import LimitWatch
from tests.faults.limits import LimitsGoal
from tests.llm.books.making import a_key, an_open

IS_SQLITE = connection.vendor == "sqlite"


@pytest.mark.e2e
@pytest.mark.slow
def test_budgets_are_spent_to_the_last_call_and_no_further(
    transactional_db: None, upstream: FakeUpstream, tmp_path: Path
) -> None:
    tariff.set_price()
    goal = LimitsGoal(seed=3, keys=16, callers=3, sites=1 if IS_SQLITE else 2, workers=1 if IS_SQLITE else 2)
    report = limits.run(goal, folder=tmp_path, upstream=upstream)
    assert (report.watch.problems, report.problems, report.refused_that_fitted) == ([], [], 0)
    assert report.admitted == report.expected > 0
    assert report.watch.samples > 1
    assert set(report.statuses) <= {"200", "429", "503"}


# --- The run itself ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("amount", "calls"), [(99, 0), (100, 1), (109, 1), (110, 2), (119, 2), (200, 11)])
def test_how_many_calls_fit_into_a_budget(amount: int, calls: int) -> None:
    assert Units(asked=100, used=10).calls_within(amount) == calls


@pytest.mark.parametrize("calls", [1, 2, 12])
@pytest.mark.parametrize("spare", [0.0, 0.5, 0.999])
def test_a_budget_is_made_for_so_many_calls(calls: int, spare: float) -> None:
    units = Units(asked=217, used=69)
    assert units.calls_within(units.amount_for(calls, spare=spare)) == calls


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("change", [{"held": 101}, {"used": 1}])
def test_who_watches_tells_what_is_overspent_and_what_calls_do_not_account_for(change: dict[str, int]) -> None:
    key = a_key()
    set_limit(key.account, None, LimitMetric.TOKENS, LimitPer.TOTAL, 100, None)
    commit_batch([an_open(key, ask=lambda: ReservationEstimate(requests=1, input_tokens=60, output_tokens=40))])
    with LimitWatch() as watch:
        pass
    assert (watch.problems, watch.fullest) == ([], 1.0)
    LimitWindow.objects.update(**change)
    watch.look()
    assert len(watch.problems) == 1
