"""What request bodies may take of a process's memory."""

from __future__ import annotations

import pytest

from llm.bodies.budget import SMALL_BODY_BYTES, VALUE_BYTES, BodyBudget, BodyLease
from llm.errors import Overloaded

MEGABYTE = 1024**2


def budget() -> BodyBudget:
    """With a room of 8 MB for small bodies."""
    return BodyBudget(max_bytes=64 * MEGABYTE, max_bytes_per_key=20 * MEGABYTE)


def holding(bodies: BodyBudget, megabytes: int, *, key_id: int, account_id: int) -> BodyLease:
    lease = bodies.lease(key_id, account_id)
    lease.grow_to(megabytes * MEGABYTE)
    return lease


async def test_a_lease_takes_what_it_grows_to_and_gives_all_back() -> None:
    bodies = budget()
    lease = bodies.lease(1, 1)
    lease.grow_to(10_000)
    lease.grow_to(5_000)
    lease.add_values(3)
    assert bodies.bytes_in_work == lease.size == 10_000 + 3 * VALUE_BYTES
    lease.grow_to(MEGABYTE)
    assert bodies.bytes_in_work == lease.size == MEGABYTE + 3 * VALUE_BYTES
    lease.release()
    assert bodies.bytes_in_work == 0


async def test_an_announcement_takes_nothing() -> None:
    bodies = budget()
    leases = [bodies.lease(1, 1) for _ in range(100)]
    for lease in leases:
        lease.expect(20 * MEGABYTE)
    assert bodies.bytes_in_work == 0
    with pytest.raises(Overloaded, match="this API key"):
        leases[0].expect(20 * MEGABYTE + 1)


async def test_a_key_gets_no_more_than_its_share() -> None:
    bodies = budget()
    first = holding(bodies, 20, key_id=1, account_id=1)
    second = bodies.lease(1, 1)
    with pytest.raises(Overloaded) as refused:
        second.grow_to(MEGABYTE)
    assert (refused.value.http_status, refused.value.code) == (503, "overloaded")
    assert refused.value.retry_after_s == 1
    assert "this API key" in refused.value.message
    first.release()
    second.grow_to(20 * MEGABYTE)
    second.release()
    assert bodies.bytes_in_work == 0


async def test_an_account_gets_half_of_what_others_leave_whatever_its_keys() -> None:
    bodies = budget()
    first = [holding(bodies, 16, key_id=key_id, account_id=1) for key_id in (1, 2)]
    with pytest.raises(Overloaded, match="this account"):
        holding(bodies, 1, key_id=3, account_id=1)
    second = holding(bodies, 16, key_id=4, account_id=2)
    with pytest.raises(Overloaded, match="this account"):
        second.grow_to(17 * MEGABYTE)
    assert second.size == 16 * MEGABYTE
    third = holding(bodies, 8, key_id=5, account_id=3)
    with pytest.raises(Overloaded, match="This gateway process"):
        holding(bodies, 5, key_id=6, account_id=4)
    for lease in (*first, second, third):
        lease.release()
    assert bodies.bytes_in_work == 0


async def test_small_bodies_find_room_when_large_ones_hold_all_that_they_may() -> None:
    bodies = budget()
    for account_id in range(1, 30):
        for size in (20 * MEGABYTE, 8 * MEGABYTE, MEGABYTE, 100_000):
            while True:
                try:
                    bodies.lease(account_id, account_id).grow_to(size)
                except Overloaded:
                    break
    for account_id in (1, 99):
        small = bodies.lease(account_id, account_id)
        small.grow_to(SMALL_BODY_BYTES)
        small.add_values(5_000)
        assert small.size == SMALL_BODY_BYTES + 5_000 * VALUE_BYTES
        with pytest.raises(Overloaded):
            small.grow_to(MEGABYTE)
        small.release()


async def test_small_bodies_beyond_their_own_room_take_the_other() -> None:
    bodies = budget()
    leases = [bodies.lease(1, 1) for _ in range(100)]
    for lease in leases:
        lease.grow_to(SMALL_BODY_BYTES)
    # Half of 8 MB is 64 of them.
    assert bodies.bytes_in_work == 100 * SMALL_BODY_BYTES
    for lease in leases:
        lease.release()
    assert bodies.bytes_in_work == 0


async def test_the_last_holder_gives_back() -> None:
    bodies = budget()
    lease = bodies.lease(1, 1)
    lease.grow_to(10)
    end_of_call = lease.share()
    lease.release()
    assert bodies.bytes_in_work == 10
    end_of_call()
    assert bodies.bytes_in_work == 0
