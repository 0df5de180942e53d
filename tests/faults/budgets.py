"""Small budgets whose number of calls is known beforehand.

All calls of a key are alike: each asks for the same number of units (what its row holds) and uses the same number. A
caller who is told "busy" asks again until he is told "spent". Used units only ever grow, so the last call is let in
exactly when the budget has room for what it asks beside what the others have used, whatever their order:

    calls = (amount - asked) // used + 1

One call more would be an overspend; one call fewer is a call refused that fitted.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llm.enums import LimitMetric, LimitPer
from llm.keys import create_key, get_or_create_account
from llm.models import Account, ApiKey, Limit, Usage
from llm.money import usd_to_pico
from tests.faults.calls import Call

_PICO_PER_MICRO = 10**6
_MAX_CALLS = 12


@dataclass(frozen=True, slots=True)
class Units:
    """What one call asks for and what it uses, in units of a metric."""

    asked: int
    used: int

    def amount_for(self, calls: int, *, spare: float) -> int:
        """A budget of exactly so many calls. spare: the share, below 1, of one more call's use."""
        return self.asked + (calls - 1) * self.used + int(spare * self.used)

    def calls_within(self, amount: int) -> int:
        return 0 if amount < self.asked else (amount - self.asked) // self.used + 1


@dataclass(frozen=True, slots=True)
class Budget:
    """A limit in all: of a key, or of a whole account where api_key_id is None."""

    account_id: int
    api_key_id: int | None
    metric: LimitMetric
    amount: int
    calls: int


@dataclass(frozen=True, slots=True)
class Caller:
    """Who holds a key, and the call that he makes again and again."""

    api_key_id: int
    account_id: int
    secret: str
    call: Call


def units_of(row: Usage, limits: Mapping[int, Limit]) -> Mapping[LimitMetric, Units]:
    """By metric, read from a settled call that limits of each metric bound."""
    holds = row.holds or ()
    asked = {LimitMetric(limits[window].metric): units for window, units in holds}
    return {metric: Units(units, units_used(row, metric, units)) for metric, units in asked.items()}


def units_used(row: Usage, metric: str, held: int) -> int:
    """What a closed call counts for. Where its figures are not known, all that it held."""
    if row.status == "void":
        return 0
    if metric == LimitMetric.REQUESTS or not row.is_billable:
        return held
    if metric == LimitMetric.TOKENS:
        return row.total_tokens
    return held if row.cost is None else -(-usd_to_pico(row.cost) // _PICO_PER_MICRO)


class Budgets:
    """By seed: `keys` of them spread over accounts of 25; each key has a budget, every second account too."""

    def __init__(self, units: Mapping[bool, Mapping[LimitMetric, Units]], *, keys: int, seed: int) -> None:
        """units: by whether calls are streams."""
        self._units = units
        self._draw = random.Random(seed)
        self.budgets: list[Budget] = []
        self.callers: list[Caller] = []
        for number in range(-(-keys // 25)):
            self._make_account(number, keys=min(25, keys - 25 * number))
        Limit.objects.bulk_create(
            Limit(
                account_id=each.account_id,
                api_key_id=each.api_key_id,
                metric=each.metric,
                per=LimitPer.TOTAL,
                amount=each.amount,
            )
            for each in self.budgets
        )

    def expected(self, account_id: int) -> int:
        """The calls that the account's keys make in all."""
        mine = [budget for budget in self.budgets if budget.account_id == account_id]
        whole = [budget.calls for budget in mine if budget.api_key_id is None]
        return min([*whole, sum(budget.calls for budget in mine if budget.api_key_id is not None)])

    def of_key(self, api_key_id: int) -> Budget:
        return next(budget for budget in self.budgets if budget.api_key_id == api_key_id)

    @property
    def account_ids(self) -> Sequence[int]:
        return sorted({caller.account_id for caller in self.callers})

    def _make_account(self, number: int, *, keys: int) -> None:
        account = get_or_create_account(f"budget-{number}")
        is_stream = number % 3 == 1
        own = [self._make_key(account, is_stream=is_stream) for _ in range(keys)]
        if number % 2 == 0:
            most = sum(budget.calls for budget in own)
            self._add(account, None, is_stream=is_stream, calls=self._draw.randint(most // 2, most))

    def _make_key(self, account: Account, *, is_stream: bool) -> Budget:
        key, secret = create_key(account, name="budget")
        # Names are equally long, so that all calls are equally large.
        call = Call(model=f"m-{key.pk:08d}", is_stream=is_stream)
        self.callers.append(Caller(key.pk, account.pk, secret, call))
        return self._add(account, key, is_stream=is_stream, calls=self._draw.randint(1, _MAX_CALLS))

    def _add(self, account: Account, key: ApiKey | None, *, is_stream: bool, calls: int) -> Budget:
        metric = self._draw.choice(list(LimitMetric))
        units = self._units[is_stream][metric]
        amount = units.amount_for(calls, spare=self._draw.random() * 0.999)
        budget = Budget(account.pk, None if key is None else key.pk, metric, amount, units.calls_within(amount))
        self.budgets.append(budget)
        return budget
