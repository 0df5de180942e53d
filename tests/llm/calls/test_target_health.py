"""Targets that fail are skipped for a while, come last meanwhile, and are tried again by one request at a time."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from pytest_django import Settings

from llm.books import heartbeat
from llm.calls.target_health import TargetHealth
from llm.prices.catalog import Target

MAIN = Target("openai", "gpt-4o", None, "main")
SPARE = Target("openai", "gpt-4o", None, "spare")


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def health(clock: Clock, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> TargetHealth:
    monkeypatch.setattr(heartbeat, "_skipped_targets", "")
    settings.LLM_TARGET_FAILURES, settings.LLM_TARGET_SKIP_SECONDS = 5, 30.0
    return TargetHealth(clock)


def order(health: TargetHealth, *targets: Target) -> list[Target]:
    return [target for target, _ in health.in_turn([(target, None) for target in targets])]


def fail(health: TargetHealth, target: Target, times: int) -> None:
    for _ in range(times):
        health.note_failure(target)


def test_five_failures_put_a_target_last(health: TargetHealth) -> None:
    fail(health, MAIN, 4)
    assert order(health, MAIN, SPARE) == [MAIN, SPARE]
    fail(health, MAIN, 1)
    assert order(health, MAIN, SPARE) == [SPARE, MAIN]
    assert heartbeat._skipped_targets == "main: gpt-4o"


def test_the_only_target_is_called_all_the_same(health: TargetHealth) -> None:
    fail(health, MAIN, 5)
    assert order(health, MAIN) == [MAIN]


def test_failures_far_apart_skip_nothing(health: TargetHealth, clock: Clock) -> None:
    for _ in range(10):
        fail(health, MAIN, 1)
        clock.now += 8
    assert (order(health, MAIN, SPARE), health.skipped) == ([MAIN, SPARE], 0)


def test_a_success_between_begins_the_count_anew(health: TargetHealth) -> None:
    fail(health, MAIN, 4)
    health.note_success(MAIN)
    fail(health, MAIN, 4)
    assert health.skipped == 0


def test_after_a_while_one_request_tries_it_again(health: TargetHealth, clock: Clock) -> None:
    fail(health, MAIN, 5)
    clock.now += 30
    assert [order(health, MAIN, SPARE) for _ in range(2)] == [[MAIN, SPARE], [SPARE, MAIN]]
    fail(health, MAIN, 1)
    clock.now += 29
    assert order(health, MAIN, SPARE) == [SPARE, MAIN]
    clock.now += 1
    assert order(health, MAIN, SPARE) == [MAIN, SPARE]
    health.note_success(MAIN)
    assert (order(health, MAIN, SPARE), health.skipped, heartbeat._skipped_targets) == ([MAIN, SPARE], 0, "")


def test_a_request_that_doesnt_get_that_far_tries_nothing(health: TargetHealth, clock: Clock) -> None:
    fail(health, SPARE, 5)
    clock.now += 30
    first = next(health.in_turn([(MAIN, None), (SPARE, None)]))
    assert first == (MAIN, None)
    assert order(health, SPARE, MAIN) == [SPARE, MAIN]


def test_keys_and_models_stand_for_themselves(health: TargetHealth) -> None:
    other_key = Target("openai", "gpt-4o", None, "main", credential="b")
    other_model = Target("openai", "gpt-4.1", None, "main")
    fail(health, MAIN, 5)
    assert order(health, MAIN, other_key, other_model) == [other_key, other_model, MAIN]


def test_zero_skips_nothing(health: TargetHealth, settings: Settings) -> None:
    settings.LLM_TARGET_FAILURES = 0
    never = TargetHealth()
    fail(never, MAIN, 100)
    assert order(never, MAIN, SPARE) == [MAIN, SPARE]


def test_made_up_names_take_bounded_room(health: TargetHealth) -> None:
    for number in range(3000):
        fail(health, Target("openai", f"made-up\0\n{number}", None), 5)
    assert health.skipped == 1024
    lines = heartbeat._skipped_targets.splitlines()
    assert len(lines) == heartbeat.MAX_SKIPPED_TOLD
    assert all(line.startswith("openai: made-up") and line.isprintable() for line in lines)
