"""What request bodies may take of a process's memory."""

from __future__ import annotations

import pytest

from llm.bodies import VALUE_BYTES, BodyBudget, trim_memory
from llm.errors import Overloaded


def budget() -> BodyBudget:
    return BodyBudget(max_bytes=100_000, max_bytes_per_key=60_000)


def test_a_lease_takes_what_it_grows_to_and_gives_all_back() -> None:
    bodies = budget()
    lease = bodies.lease(1)
    lease.grow_to(10_000)
    lease.grow_to(5_000)
    lease.add_values(3)
    assert bodies.bytes_in_work == 10_000 + 3 * VALUE_BYTES
    lease.release()
    assert (bodies.bytes_in_work, bodies.peak_bytes) == (0, 10_000 + 3 * VALUE_BYTES)


def test_a_key_gets_no_more_than_its_share() -> None:
    bodies = budget()
    first, second = bodies.lease(1), bodies.lease(1)
    first.grow_to(60_000)
    with pytest.raises(Overloaded) as refused:
        second.grow_to(1)
    assert (refused.value.http_status, refused.value.code) == (503, "overloaded")
    assert refused.value.retry_after_s == 1
    assert "this API key" in refused.value.message
    first.release()
    second.grow_to(60_000)
    second.release()
    assert bodies.bytes_in_work == 0


def test_a_process_holds_no_more_than_its_bound() -> None:
    bodies = budget()
    first, second = bodies.lease(1), bodies.lease(2)
    first.grow_to(60_000)
    with pytest.raises(Overloaded, match="This gateway process"):
        second.grow_to(40_001)
    assert (second.size, bodies.bytes_in_work) == (0, 60_000)
    second.grow_to(40_000)
    assert bodies.bytes_in_work == bodies.peak_bytes == 100_000
    first.release()
    second.release()


def test_the_last_holder_gives_back() -> None:
    bodies = budget()
    lease = bodies.lease(1)
    lease.grow_to(10)
    end_of_call = lease.share()
    lease.release()
    assert bodies.bytes_in_work == 10
    end_of_call()
    assert bodies.bytes_in_work == 0


def test_memory_can_be_trimmed_whatever_the_c_library() -> None:
    trim_memory()
