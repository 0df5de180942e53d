"""Targets that have failed repeatedly come last for a while, so that requests don't wait for them first.

Each process sees for itself. Only a failure of the target's own counts (`UpstreamCall.has_failed_upstream`): never a
refusal of what a caller has sent, nor a call that was stopped. A request counts once, however often it was tried there.
After enough failures without a success in between, the target is skipped: it is called only if no other is left. Later,
one request tries it again (half-open), and the target is back once it answers one.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import structlog
from django.conf import settings

from llm import metrics
from llm.books.heartbeat import note_skipped_targets
from llm.prices.catalog import Target

log = structlog.get_logger("llm.calls")

T = TypeVar("T")

_MAX_REMEMBERED = 1024
"""Callers choose names of models: this bounds what they can make us remember."""


class _Name(NamedTuple):
    instance: str
    credential: str
    upstream_model: str


class TargetHealth:
    """LLM_TARGET_FAILURES within LLM_TARGET_SKIP_SECONDS skip a target for as many seconds; 0 skips none."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._enough: int = settings.LLM_TARGET_FAILURES
        self._seconds: float = settings.LLM_TARGET_SKIP_SECONDS
        self._failures: dict[_Name, deque[float]] = {}
        self._skipped: dict[_Name, float] = {}
        """Until when nobody tries it."""

    @property
    def skipped(self) -> int:
        return len(self._skipped)

    def in_turn(self, targets: Sequence[tuple[Target, T]]) -> Iterator[tuple[Target, T]]:
        """One after the other as they are to be called; those that are skipped come last."""
        if not self._skipped:
            yield from targets
            return
        passed_over: list[tuple[Target, T]] = []
        for each in targets:
            if self._lets_through(_name(each[0])):
                yield each
            else:
                passed_over.append(each)
                metrics.TARGETS_PASSED_OVER.labels(each[0].instance).inc()
        yield from passed_over

    def note_success(self, target: Target) -> None:
        """It has answered."""
        if not self._failures and not self._skipped:
            return
        name = _name(target)
        self._failures.pop(name, None)
        if self._skipped.pop(name, None) is not None:
            log.info("target.recovered", instance=name.instance, upstream_model=name.upstream_model)
            self._tell()

    def note_failure(self, target: Target) -> None:
        """It has failed a request for reasons of its own."""
        metrics.TARGET_FAILURES.labels(target.instance).inc()
        if not self._enough:
            return
        name, now = _name(target), self._clock()
        failures = self._failures.pop(name, None) or deque(maxlen=self._enough)
        failures.append(now)
        _add(self._failures, name, failures)
        has_enough = len(failures) == self._enough and now - failures[0] <= self._seconds
        if name in self._skipped:
            self._skipped[name] = now + self._seconds
        elif has_enough:
            _add(self._skipped, name, now + self._seconds)
            log.warning("target.skipped", instance=name.instance, upstream_model=name.upstream_model)
            self._tell()

    def _lets_through(self, name: _Name) -> bool:
        """Of a target that is skipped, one request each while."""
        until, now = self._skipped.get(name), self._clock()
        if until is None:
            return True
        if now < until:
            return False
        self._skipped[name] = now + self._seconds
        return True

    def _tell(self) -> None:
        metrics.TARGETS_SKIPPED.clear()
        for instance, number in Counter(name.instance for name in self._skipped).items():
            metrics.TARGETS_SKIPPED.labels(instance).set(number)
        note_skipped_targets({f"{name.instance}: {name.upstream_model}" for name in self._skipped})


def _name(target: Target) -> _Name:
    return _Name(target.instance, target.credential, target.upstream_model)


def _add(names: dict[_Name, T], name: _Name, value: T) -> None:
    """The one that was noted first makes room."""
    if len(names) >= _MAX_REMEMBERED:
        names.pop(next(iter(names)))
    names[name] = value
