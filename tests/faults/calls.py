"""What callers do: calls by seed, each under a name of its own, by which the ledger and the books are compared."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.fakes import Script
from tests.faults.spoken import CHAT, DIALECTS_OF, SPOKEN

NORMAL = Script(header_delay_s=0.05, chunks=20, event_delay_s=0.02, cache_read_tokens=1000, reasoning_tokens=7)
"""What serves names that ask for no script: long enough for a fault to meet it half way."""

# Scripts and how often each comes. What an upstream can do to us between a good day and its worst.
HOSTILE: Mapping[str, int] = {
    "cut-0": 3,
    "cut-3": 4,
    "cut-6": 3,
    "cut-inside-3": 4,
    "close-0": 2,
    "close-3": 4,
    "error-event-0": 2,
    "error-event-3": 4,
    "hang-up": 3,
    "hang-0": 2,
    "hang-3": 3,
    "hang-headers": 2,
    "comments-0": 2,
    "comments-3": 2,
    "truncated": 4,
    "garbage": 3,
    "html": 2,
    "html-502": 2,
    "empty": 2,
    "no-usage": 4,
    "negative-usage": 3,
    "absurd-usage": 3,
    "no-done": 4,
    "huge-300000": 2,
    "gzip": 3,
    "gzip-bomb-3000000": 1,
    "crlf": 3,
    "bytes": 2,
    "leak-text": 2,
    "redirect": 1,
    "quota": 1,
    "429-0.01": 2,
    "500": 2,
    "503-0.01": 2,
    "529": 1,
    "cached-1000": 4,
    "reasoning-500": 4,
}
# Seldom: each takes a second of a core on either side.
ENORMOUS: Sequence[str] = ("huge-20000000", "gzip-bomb-100000000")
_ENORMOUS_SHARE = 0.002
_LONGEST_LOOK_BYTES = 3000
_LONGEST_WAIT_S = 0.3


@dataclass(frozen=True, slots=True)
class Call:
    """One call of one caller.

    leaves_after_s: hangs up so soon after asking, without a look at the reply. leaves_after_bytes: of the reply's body.
    resets: hangs up with a reset instead of a polite end. dialect: of `spoken`. has_key: it has an idempotency key,
    and is sent again with it, whatever came of it.
    """

    model: str
    is_stream: bool
    leaves_after_s: float | None = None
    leaves_after_bytes: int | None = None
    resets: bool = False
    dialect: str = CHAT
    has_key: bool = False


@dataclass(frozen=True, slots=True)
class Mix:
    """How often, of 1: an upstream that misbehaves, a stream, a caller who leaves before or in the reply, one who sends
    an idempotency key.
    """

    hostile: float
    streams: float
    leavers: float
    keyed: float = 0.2


KILL_MIX = Mix(hostile=0.15, streams=0.6, leavers=0.2)
HOSTILE_MIX = Mix(hostile=1.0, streams=1.0, leavers=0.2)


class Calls:
    """The same calls for the same seed, in the same order, in every dialect that can be asked of the provider."""

    def __init__(self, seed: int, mix: Mix, *, provider: str = "openai") -> None:
        self._random = random.Random(seed)
        self._dialects = DIALECTS_OF[provider]
        self._mix = mix
        self._scripts, self._weights = list(HOSTILE), list(HOSTILE.values())

    def next(self) -> Call:
        draw = self._random
        [dialect] = draw.choices([*self._dialects], [*self._dialects.values()])
        is_stream = draw.random() < self._mix.streams and bool(SPOKEN[dialect].end)
        leaves_after_s: float | None = None
        leaves_after_bytes: int | None = None
        if draw.random() < self._mix.leavers:
            if draw.random() < 0.5:
                leaves_after_s = draw.uniform(0, _LONGEST_WAIT_S)
            else:
                leaves_after_bytes = draw.randrange(_LONGEST_LOOK_BYTES)
        resets, has_key = draw.random() < 0.5, draw.random() < self._mix.keyed
        return Call(self._model(), is_stream, leaves_after_s, leaves_after_bytes, resets, dialect, has_key)

    def _model(self) -> str:
        mark = f"{self._random.getrandbits(64):016x}"
        if self._random.random() >= self._mix.hostile:
            return f"m-{mark}"
        if self._random.random() < _ENORMOUS_SHARE:
            return f"fake-{self._random.choice(ENORMOUS)}@{mark}"
        [script] = self._random.choices(self._scripts, self._weights)
        return f"fake-{script}@{mark}"
