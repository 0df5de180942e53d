"""Who gets a place before whom, and how many."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable

import pytest

from llmproject.places import WAITING_PER_PLACE, Claimant, PlaceRefusal, Places, Standing

STAFF, KEY, STRANGER = Standing


def names(standing: Standing) -> Callable[[int], Claimant]:
    return lambda number: Claimant(standing, f"{standing} {number}")


staff, key, stranger = (names(standing) for standing in Standing)


async def take(places: Places, claimants: list[Claimant]) -> list[Claimant]:
    """Those of them who find a place without waiting."""
    return [each for each in claimants if await places.enter(each) is None]


def impatient(number: int) -> Places:
    return Places(number, patience_s=0)


@pytest.mark.parametrize(
    ("number", "of_staff", "of_keys", "of_strangers", "of_both"),
    [(1, 1, 1, 1, 1), (2, 2, 1, 1, 1), (3, 3, 1, 1, 2), (4, 4, 2, 2, 3), (8, 8, 4, 4, 6), (64, 64, 32, 32, 48)],
)
async def test_each_kind_of_caller_has_a_share(
    number: int, of_staff: int, of_keys: int, of_strangers: int, of_both: int
) -> None:
    for kind, most in ((staff, of_staff), (key, of_keys), (stranger, of_strangers)):
        assert len(await take(impatient(number), [kind(each) for each in range(100)])) == most
    mixed = [kind(each) for each in range(100) for kind in (stranger, key)]
    places = impatient(number)
    assert len(await take(places, mixed)) == of_both
    assert len(await take(places, [staff(each) for each in range(100)])) == number - of_both


@pytest.mark.parametrize("kind", [staff, key, stranger])
@pytest.mark.parametrize("number", [4, 8, 64])
async def test_nobody_takes_all_that_their_kind_has(kind: Callable[[int], Claimant], number: int) -> None:
    places = impatient(number)
    own = await take(places, [kind(0)] * 100)
    others = await take(places, [kind(each) for each in range(1, 100)])
    assert 0 < len(own) <= len(others)
    assert await places.enter(kind(0)) is PlaceRefusal.OWN
    assert await places.enter(kind(200)) is PlaceRefusal.ALL


async def test_a_place_goes_to_staff_first_then_to_keys_and_among_these_in_turn() -> None:
    places = Places(1, patience_s=1000)
    assert await places.enter(stranger(0)) is None
    served: list[Claimant] = []

    async def visit(claimant: Claimant) -> None:
        assert await places.enter(claimant) is None
        served.append(claimant)
        places.leave(claimant)

    order = [stranger(1), key(1), stranger(2), staff(1), key(2), staff(2)]
    visits = [asyncio.create_task(visit(claimant)) for claimant in order]
    await asyncio.sleep(0)
    places.leave(stranger(0))
    async with asyncio.timeout(20):
        await asyncio.gather(*visits)
    assert served == [staff(1), staff(2), key(1), key(2), stranger(1), stranger(2)]


async def test_a_queue_of_strangers_is_not_that_of_staff_and_no_address_fills_it() -> None:
    places = Places(4, patience_s=1000)
    await take(places, [stranger(1), stranger(2)])
    asked = [asyncio.create_task(places.enter(stranger(1))) for _ in range(100)]
    await asyncio.sleep(0)
    assert places.waiting == WAITING_PER_PLACE
    asked += [asyncio.create_task(places.enter(stranger(each))) for each in range(3, 100)]
    await asyncio.sleep(0)
    assert places.waiting == 2 * WAITING_PER_PLACE
    assert await places.enter(staff(1)) is None
    assert await places.enter(key(1)) is None
    for task in asked:
        task.cancel()
    await asyncio.gather(*asked, return_exceptions=True)
    assert places.waiting == 0


async def test_no_place_is_lost_or_given_twice_whoever_leaves_when() -> None:
    """Waits that end by patience or by a caller who leaves, in the same moment as a place gets free."""
    chance = random.Random(7)
    places = Places(4, patience_s=0.003)
    at_work = Counter[Standing]()

    async def visit() -> None:
        claimant = chance.choice((staff, key, stranger))(chance.randrange(3))
        await asyncio.sleep(chance.random() / 50)
        if await places.enter(claimant) is not None:
            return
        at_work[claimant.standing] += 1
        assert at_work.total() <= 4
        assert at_work[STRANGER] <= 2
        assert at_work[KEY] <= 2
        assert at_work[KEY] + at_work[STRANGER] <= 3
        try:
            await asyncio.sleep(chance.choice((0, 0.001, 0.003)))
        finally:
            at_work[claimant.standing] -= 1
            places.leave(claimant)

    async def leave_early(task: asyncio.Task[None]) -> None:
        await asyncio.sleep(chance.random() / 50)
        task.cancel()

    visits = [asyncio.create_task(visit()) for _ in range(600)]
    await asyncio.gather(*(leave_early(task) for task in visits[::3]))
    results = await asyncio.gather(*visits, return_exceptions=True)
    assert {type(each) for each in results} <= {type(None), asyncio.CancelledError}
    assert (places.waiting, places._taken.total(), dict(places._taken_by), dict(places._waiting_of)) == (0, 0, {}, {})
    assert len(await take(places, [staff(each) for each in range(10)])) == 4
