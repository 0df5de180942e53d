"""Admission: limits compared with what is used and held. Pure arithmetic over locked windows.

A call is admitted only if its maximum usage fits into every limit that applies, beside what was used and what other
open calls hold. So a limit can't be overspent, as long as upstreams respect the maximum that they are given.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from llm.enums import LimitMetric, LimitPer, UsageStatus
from llm.money import PICO
from llm.types import LimitState

MICRO: int = 10**6
PICO_PER_MICRO: int = PICO // MICRO
_METRICS = (LimitMetric.REQUESTS, LimitMetric.TOKENS, LimitMetric.COST)


class ReservationEstimate(NamedTuple):
    """What a call may use at most, whatever tiers and token classes it turns out to use.

    requests: 0 where an earlier call of the same request counts already. input_tokens, output_tokens: None where nobody
    can say; output_tokens are those of one choice, of which there are `choices`. is_stated: whether the caller said
    them. Else a limit sets a maximum, if the call `takes_maximum`, of `unstated_output_tokens` at most. input_pico:
    pico-units of USD for all input and fees; output_token_pico: for a token of output. Both are None where no price
    bounds the call, and `why_unpriced` says so to the caller, as `why_uncounted` does where nothing bounds its tokens.
    """

    requests: int
    input_tokens: int | None
    output_tokens: int | None
    choices: int = 1
    takes_maximum: bool = True
    is_stated: bool = True
    unstated_output_tokens: int = 1
    input_pico: int | None = 0
    output_token_pico: int | None = 0
    why_uncounted: str = ""
    why_unpriced: str = ""


@dataclass(frozen=True, slots=True)
class Exceeded:
    """The limit that a call doesn't fit into.

    kind: `spent` (final until it resets), `busy` (other calls hold the rest), `too_large` (more than the whole limit),
    `unbounded` (the call's maximum usage is unknown). why: ends the sentence about the last kind.
    needed, left: units that the call would reserve, and that another call could; max_output_tokens: the highest output
    maximum of a choice with which it would fit. None where nobody can say, or where no maximum makes it fit.
    takes_maximum: whether the caller could set one.
    """

    kind: str
    metric: LimitMetric
    per: LimitPer
    amount: int
    is_of_key: bool
    resets_in_s: float | None
    why: str = ""
    needed: int | None = None
    left: int = 0
    max_output_tokens: int | None = None
    takes_maximum: bool = True
    is_per_end_user: bool = False
    limit_id: int = 0


@dataclass(frozen=True, slots=True)
class LimitRow:
    """A limit in force. api_key_id: None if it applies to the whole account."""

    id: int
    account_id: int
    api_key_id: int | None
    metric: LimitMetric
    per: LimitPer
    amount: int
    soft_percent: int | None
    is_per_end_user: bool = False
    metric_index: int = field(init=False)
    """Position of its metric in `_METRICS`: needed for each call, and enum members are slow to hash."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "metric_index", _METRICS.index(self.metric))

    def binds(self, *, account_id: int, key_id: int) -> bool:
        return self.account_id == account_id and self.api_key_id in (None, key_id)


@dataclass(slots=True)
class Window:
    """A locked window and what this batch adds to it. used, held: with those additions.

    end_user: see `llm.limits.end_user_windows`; "" of a limit that isn't for each of them.
    """

    id: int
    limit: LimitRow
    starts_at: datetime
    used: int
    held: int
    is_announced: bool
    end_user: str = ""
    added_used: int = 0
    added_held: int = 0

    def add(self, *, used: int = 0, held: int = 0) -> None:
        self.used += used
        self.held += held
        self.added_used += used
        self.added_held += held

    @property
    def left(self) -> int:
        """What another call could hold at most."""
        return max(0, self.limit.amount - self.used - self.held)

    def has_room_for(self, units: int | None) -> bool:
        """None: the amount is unknown."""
        return units is not None and self.used + self.held + units <= self.limit.amount

    def hold(self, units: int) -> tuple[int, int]:
        """In the form of the open row: the window's id, and how much."""
        self.held += units
        self.added_held += units
        return self.id, units

    @property
    def has_changed(self) -> bool:
        return bool(self.added_used or self.added_held)

    @property
    def crosses_soft_threshold(self) -> bool:
        soft = self.limit.soft_percent
        return not self.is_announced and soft is not None and self.used * 100 >= self.limit.amount * soft > 0


class BindingWindow(NamedTuple):
    """A window of the period that a call is in. ends_at: None for a period without an end."""

    window: Window
    ends_at: datetime | None


class Admission(NamedTuple):
    """holds: (window id, units) each, [] for a refused call. max_output_tokens: as lowered by a limit, or None."""

    holds: tuple[tuple[int, int], ...] = ()
    max_output_tokens: int | None = None
    limits: tuple[LimitState, ...] = ()
    exceeded: Exceeded | None = None


def admit(binding: Sequence[BindingWindow], ask: ReservationEstimate, *, now: datetime) -> Admission:
    """Take the call's holds in all of these windows, or return the limit that it doesn't fit into and take none.

    A call that asks for more than a whole limit gets a lower output maximum, if that makes it fit.
    """
    maximum = _clamped_output(binding, ask)
    needs = _needs(ask, maximum)
    for each in binding:
        units = needs[each.window.limit.metric_index]
        if not each.window.has_room_for(units):
            return Admission(exceeded=_obstacle(each, units, ask, now), limits=_states(binding, ()))
    holds = tuple([window.hold(needs[window.limit.metric_index] or 0) for window, _ in binding])
    is_lowered = maximum is not None and maximum != ask.output_tokens
    return Admission(holds, maximum if is_lowered else None, _states(binding, holds))


def units_used(metric: str, held: int, *, status: str, total_tokens: int, cost_pico: int | None, is_known: bool) -> int:
    """What a closed call has used of a limit, in its units.

    is_known: whether the figures are reliable. If not (disputed, lost, unpriced), what was held counts: nothing that an
    upstream says or omits gives back what may have been spent.
    """
    if status == UsageStatus.VOID:
        return 0
    if metric == LimitMetric.REQUESTS or not is_known:
        return held
    if metric == LimitMetric.TOKENS:
        return total_tokens
    return held if cost_pico is None else -(-cost_pico // PICO_PER_MICRO)


def _clamped_output(binding: Iterable[BindingWindow], ask: ReservationEstimate) -> int | None:
    """The output maximum of one choice under which the call fits into each whole limit; as asked where it does.

    Whoever asks for none gets a tenth of each limit at most, so that one answer doesn't hold all that others need. A
    model whose whole window is no more than that needs to be sent none.
    """
    limits = [window.limit for window, _ in binding]
    rooms = [_room_for_output(limit.metric, limit.amount, ask) for limit in limits]
    if not ask.is_stated:
        rooms += [_tenth_for_output(limit.metric, limit.amount, ask) for limit in limits]
    known = [max(room, 1) for room in rooms if room is not None]
    if not known or not ask.takes_maximum:
        return ask.output_tokens
    if ask.output_tokens is not None and (ask.is_stated or ask.output_tokens <= min(known)):
        return min(ask.output_tokens, *known)
    return min(ask.unstated_output_tokens, *known)


def _tenth_for_output(metric: LimitMetric, units: int, ask: ReservationEstimate) -> int | None:
    """Tokens of output that one choice may have for a tenth of so many units; None where the metric doesn't say."""
    if _room_for_output(metric, units, ask) is None:
        return None
    if metric is LimitMetric.TOKENS:
        return units // 10 // ask.choices
    return units * PICO_PER_MICRO // 10 // (ask.choices * (ask.output_token_pico or 1))


def _room_for_output(metric: LimitMetric, units: int, ask: ReservationEstimate) -> int | None:
    """Output tokens that one choice may have within this many units; None if the metric doesn't determine it."""
    if metric is LimitMetric.TOKENS and ask.input_tokens is not None:
        return (units - ask.input_tokens) // ask.choices
    if metric is LimitMetric.COST and ask.input_pico is not None and ask.output_token_pico:
        return (units * PICO_PER_MICRO - ask.input_pico) // (ask.choices * ask.output_token_pico)
    return None


def _needs(ask: ReservationEstimate, maximum: int | None) -> tuple[int | None, ...]:
    """What the call may use at most, in the units of each of `_METRICS`; None if unknown."""
    tokens = cost = None
    if ask.input_tokens is not None and maximum is not None:
        tokens = ask.input_tokens + ask.choices * maximum
    if ask.input_pico is not None and ask.output_token_pico is not None:
        if maximum is not None:
            cost = -(-(ask.input_pico + ask.choices * maximum * ask.output_token_pico) // PICO_PER_MICRO)
        elif not ask.output_token_pico:
            cost = -(-ask.input_pico // PICO_PER_MICRO)
    return ask.requests, tokens, cost


def _obstacle(binding: BindingWindow, units: int | None, ask: ReservationEstimate, now: datetime) -> Exceeded:
    """Why the window has no room."""
    window, ends_at = binding
    limit = window.limit
    why = ""
    if units is None:
        kind = "unbounded"
        why = ask.why_unpriced if limit.metric is LimitMetric.COST else ask.why_uncounted
    elif units > limit.amount > 0 or (units and not limit.amount):
        kind = "too_large" if limit.amount else "spent"
    elif window.used + units > limit.amount:
        kind = "spent"
    else:
        kind = "busy"
    resets_in_s = None if ends_at is None else (ends_at - now).total_seconds()
    room = _room_for_output(limit.metric, window.left, ask) if ask.takes_maximum else None
    return Exceeded(
        kind,
        limit.metric,
        limit.per,
        limit.amount,
        limit.api_key_id is not None,
        resets_in_s,
        why,
        needed=units,
        left=window.left,
        max_output_tokens=room if room is not None and room > 0 else None,
        takes_maximum=ask.takes_maximum,
        is_per_end_user=limit.is_per_end_user,
        limit_id=limit.id,
    )


def _states(binding: Sequence[BindingWindow], holds: Sequence[tuple[int, int]]) -> tuple[LimitState, ...]:
    """holds: the call's own, in the order of the windows; none for a refused call."""
    held = [units for _, units in holds] or [0] * len(binding)
    return tuple(
        [
            LimitState(window.limit.metric, window.limit.amount, window.left, end, units)
            for (window, end), units in zip(binding, held, strict=True)
        ]
    )
