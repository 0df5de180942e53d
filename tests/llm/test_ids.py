"""Identifiers sort by the moment they were made, and say what they are."""

from __future__ import annotations

import os
import uuid
from datetime import UTC, datetime, timedelta

import pytest
import time_machine
from hypothesis import given
from hypothesis import strategies as st

from llm import ids
from llm.ids import boot_id, uuid7

# RFC 9562 has 48 bits of milliseconds; time_machine takes moments up to the year 9999.
MOMENTS = st.integers(0, 253_402_300_799_000)


def made_at(milliseconds: int) -> uuid.UUID:
    with time_machine.travel(datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds), tick=False):
        return uuid7()


@given(MOMENTS)
def test_a_uuid7_is_one_by_rfc_9562(milliseconds: int) -> None:
    made = made_at(milliseconds)
    assert (made.version, made.variant) == (7, uuid.RFC_4122)
    # time_machine counts in floats, so a late moment may be off by one.
    assert abs((made.int >> 80) - milliseconds) <= 1


@given(MOMENTS, MOMENTS)
def test_a_later_one_is_larger_as_a_uuid_and_as_text(one: int, other: int) -> None:
    first, second = sorted((one, other))
    early, late = made_at(first), made_at(second + 2)
    assert early < late
    assert early.hex < late.hex
    assert str(early) < str(late)


def test_every_bit_but_the_fixed_ones_is_used() -> None:
    with time_machine.travel(datetime(2026, 11, 1, tzinfo=UTC), tick=False):
        values = [uuid7().int for _ in range(400)]
    seen_set = seen_clear = 0
    for value in values:
        seen_set |= value
        seen_clear |= ~value
    random_bits = (1 << 80) - 1 & ~(0xF << 76) & ~(0b11 << 62)
    assert seen_set & seen_clear & ((1 << 80) - 1) == random_bits


def test_those_of_one_millisecond_differ() -> None:
    with time_machine.travel(datetime(2026, 11, 1, tzinfo=UTC), tick=False):
        assert len({uuid7() for _ in range(10_000)}) == 10_000


def test_a_process_keeps_its_boot_id() -> None:
    assert boot_id() == boot_id()


def test_a_forked_child_gets_a_boot_id_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ids, "_boot_ids", {})
    own = boot_id()
    pid = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: pid + 1)
    assert boot_id() != own
