"""Whether the books are exact: the usage rows against the ledger of the upstream and what the callers saw.

Every call has a model name of its own, so the name tells which rows and which entries belong together.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, TypeVar

from tests.fakes import Counts, Entry
from tests.faults import tariff
from tests.faults.load import Outcome

if TYPE_CHECKING:
    from llm.models import Usage

_EXACT = ("reported", "drained")
_REFUSED = 300
_NOT_SENT = 503
_SURELY_NOTHING = frozenset((*range(300, 500), 503, 529))
"""With these an upstream says that it did nothing."""
_PICO = 12

_Figures = tuple[int, ...]
_Named = TypeVar("_Named", Entry, "Usage")


@dataclass
class Verdict:
    """Figures that must be zero, and `explanations` that name each offending row; the rest is told for its own sake.

    missing: served by the upstream, not on the books. doubled: on the books more often than served. wrong: figures that
    are not the ledger's, a cost that is not theirs, an estimate where the caller got a complete answer, or a charge
    where he was told that nothing was sent. repeated: requests with an idempotency key of which the upstream got more
    after one that may have worked. leaked_holds: what is held in all, in the units of the limits.
    unsent: estimates of calls that never reached the upstream, or that it refused in a way that proves nothing, such as
    an HTML page; `remarks` names them.
    """

    missing: int = 0
    doubled: int = 0
    wrong: int = 0
    repeated: int = 0
    leaked_holds: int = 0
    open_rows: int = 0
    unexplained_500s: int = 0
    calls: int = 0
    complete: int = 0
    entries: int = 0
    rows: int = 0
    estimated: int = 0
    unsent: int = 0
    explanations: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    @property
    def is_exact(self) -> bool:
        return not (
            self.missing
            or self.doubled
            or self.wrong
            or self.repeated
            or self.leaked_holds
            or self.open_rows
            or self.unexplained_500s
        )

    def blame(self, kind: str, what: str) -> None:
        setattr(self, kind, getattr(self, kind) + 1)
        self.explanations.append(f"{kind}: {what}")


def compare(entries: Sequence[Entry], rows: Sequence[Usage], outcomes: Sequence[Outcome], *, held: int = 0) -> Verdict:
    """held: what is still put aside for calls under way, when there are none."""
    verdict = Verdict(calls=len({outcome.model for outcome in outcomes}), entries=len(entries), rows=len(rows))
    entries_of, rows_of = _by_name(entries), _by_name(rows)
    for model in entries_of.keys() | rows_of.keys():
        _compare_name(verdict, entries_of[model], rows_of[model])
    for model in {outcome.model for outcome in outcomes if outcome.has_key}:
        _check_repeats(verdict, model, entries_of[model])
    answers_of: defaultdict[str, set[int | None]] = defaultdict(set)
    for outcome in outcomes:
        # A repeat of a request that was broken off can't tell what became of that.
        answers_of[outcome.model].add(outcome.status)
    for outcome in outcomes:
        if outcome.is_unexplained:
            verdict.blame("unexplained_500s", f"{outcome.model} was answered {outcome.status}")
        if answers_of[outcome.model] == {_NOT_SENT} and not entries_of[outcome.model]:
            _check_unsent(verdict, outcome, rows_of[outcome.model])
        if outcome.is_complete:
            verdict.complete += 1
            _check_complete(verdict, outcome, entries_of[outcome.model], rows_of[outcome.model])
    verdict.estimated = sum(row.status == "estimated" for row in rows)
    if held and not verdict.open_rows:
        verdict.leaked_holds = held
        verdict.explanations.append(f"leaked_holds: {held} units are held for nobody")
    return verdict


def read_rows() -> list[Usage]:
    """Open and closed calls, oldest first."""
    from tests.books import all_calls

    return all_calls()


def held_units() -> int:
    """What limits hold for calls under way, on all accounts and keys."""
    from django.db.models import Sum

    from llm import models

    windows = getattr(models, "LimitWindow", None)
    if windows is None:
        return 0
    return int(windows.objects.aggregate(total=Sum("held"))["total"] or 0)


def _compare_name(verdict: Verdict, entries: Sequence[Entry], rows: Sequence[Usage]) -> None:
    served = [entry for entry in entries if entry.status < _REFUSED and not _is_overloaded(entry)]
    unclaimed = Counter(_figures(entry.counts) for entry in served)
    guesses = 0
    frees = len(entries) - len(served)
    for row in rows:
        _check_cost(verdict, row)
        if row.status == "open":
            verdict.blame("open_rows", f"{_told(row)} is open")
            guesses += 1
        elif row.status == "estimated":
            guesses += 1
        elif row.usage_source in _EXACT:
            _claim(verdict, row, unclaimed)
        elif row.status == "settled":
            frees -= 1
            if frees < 0:
                verdict.blame("doubled", f"{_told(row)} is a refusal that the upstream knows nothing of")
    unguessed = unclaimed.total() - guesses
    if unguessed > 0:
        verdict.missing += unguessed
        verdict.explanations.append(f"missing: {unguessed} of {served} have no row; rows: {[*map(_told, rows)]}")
    if unguessed < 0:
        verdict.unsent -= unguessed
        told = [_told(row) for row in rows if row.status == "estimated"]
        verdict.remarks.append(f"unsent: {-unguessed} of {told}; entries: {[entry.status for entry in entries]}")


def _check_repeats(verdict: Verdict, model: str, entries: Sequence[Entry]) -> None:
    statuses = [entry.status for entry in sorted(entries, key=lambda entry: entry.serial)]
    if not all(status in _SURELY_NOTHING for status in statuses[:-1]):
        verdict.blame("repeated", f"{model} has an idempotency key, and the upstream got {statuses}")


def _claim(verdict: Verdict, row: Usage, unclaimed: Counter[_Figures]) -> None:
    """A row that says it is exact takes the entry that it is about away from the others."""
    figures = _figures(row)
    if unclaimed[figures]:
        unclaimed[figures] -= 1
        return
    others = list(unclaimed.elements())
    if not others:
        verdict.blame("doubled", f"{_told(row)} is exact about a call that the upstream did not serve")
        return
    verdict.blame("wrong", f"{_told(row)} says {figures}, the ledger {others[0]}")
    unclaimed[others[0]] -= 1


def _check_cost(verdict: Verdict, row: Usage) -> None:
    if row.status == "open":
        return
    pico = None if row.cost is None else int(row.cost.scaleb(_PICO))
    if row.status == "void" and pico in (None, 0):
        return
    if pico != tariff.cost_pico(row):
        verdict.blame("wrong", f"{_told(row)} costs {pico} pico-units, its tokens {tariff.cost_pico(row)}")


def _check_complete(verdict: Verdict, outcome: Outcome, entries: Sequence[Entry], rows: Sequence[Usage]) -> None:
    """A caller with a complete answer has one row, and it is exact wherever the upstream told the truth."""
    charged = [row for row in rows if row.status not in ("void", "open") and row.usage_source != "none"]
    told = [_told(row) for row in rows]
    if len(charged) != 1:
        verdict.blame("wrong", f"{outcome} has {len(charged)} charged rows: {told}")
        return
    is_exact = charged[0].status == "settled" and charged[0].usage_source in _EXACT
    if is_exact == any(_is_honest(entry) for entry in entries):
        return
    verdict.blame("wrong", f"{outcome} has the row {told}, but the upstream had said {[e.usage for e in entries]}")


def _check_unsent(verdict: Verdict, outcome: Outcome, rows: Sequence[Usage]) -> None:
    for row in rows:
        if row.status == "estimated":
            verdict.blame("wrong", f"{outcome} was told that nothing was sent, but {_told(row)} charges for it")


def _is_overloaded(entry: Entry) -> bool:
    """Anthropic may say so in the first event of a stream: a 529 behind a 200, which bills nothing."""
    is_error_first = entry.is_stream and entry.model.startswith("fake-error-event-0@")
    return is_error_first and entry.dialect.startswith("anthropic")


def _is_honest(entry: Entry) -> bool:
    """Whether the usage that it sent is what it bills."""
    usage = entry.usage or {}
    if "prompt_tokens" in usage:
        sent = usage["prompt_tokens"], usage.get("completion_tokens", 0)
    else:
        # In Anthropic's words the cache is not part of the input.
        cached = usage.get("cache_read_input_tokens", 0)
        sent = usage.get("input_tokens", 0) + cached, usage.get("output_tokens")
    return sent == (entry.counts.prompt_tokens, entry.counts.completion_tokens)


def _figures(item: Counts | Usage) -> _Figures:
    return tuple(getattr(item, each.name) for each in fields(Counts))


def _told(row: Usage) -> str:
    return f"row {row.id} of {row.model} ({row.status}, {row.usage_source}, {row.outcome}, {row.error_code})"


def _by_name(items: Iterable[_Named]) -> defaultdict[str, list[_Named]]:
    by_name: defaultdict[str, list[_Named]] = defaultdict(list)
    for item in items:
        by_name[item.model].append(item)
    return by_name
