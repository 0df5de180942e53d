"""Heavy steps on the event loop, one at a time."""

from __future__ import annotations

import asyncio

from llm.bodies.turns import LIGHT_BYTES, take_turn


async def test_between_two_heavy_steps_everybody_else_gets_a_turn() -> None:
    done: list[str] = []

    async def heavy(name: str) -> None:
        await take_turn(LIGHT_BYTES + 1)
        done.append(name)

    async def light() -> None:
        # As many passes of the loop as a request to /healthz takes.
        for _ in range(3):
            await asyncio.sleep(0)
        done.append("light")

    heavy_steps = [asyncio.ensure_future(heavy(f"heavy {number}")) for number in range(5)]
    await asyncio.sleep(0)
    await asyncio.gather(light(), *heavy_steps)
    assert done.index("light") <= 1
    assert done[0 if done[0] != "light" else 1] == "heavy 0"
    assert len(done) == 6


async def test_a_light_step_waits_for_nobody() -> None:
    waiting = [asyncio.ensure_future(take_turn(LIGHT_BYTES + 1)) for _ in range(5)]
    await asyncio.sleep(0)
    await take_turn(LIGHT_BYTES)
    assert not any(task.done() for task in waiting)
    await asyncio.gather(*waiting)


async def test_who_gives_up_while_waiting_holds_nobody_up() -> None:
    first, second, third = (asyncio.ensure_future(take_turn(LIGHT_BYTES + 1)) for _ in range(3))
    await asyncio.sleep(0)
    first.cancel()
    second.cancel()
    await third
    assert first.cancelled()
    assert second.cancelled()
