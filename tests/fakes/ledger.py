"""What the fake upstream served and would bill, call by call: the other side's books."""

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

JSON = dict[str, Any]

# entries() waits this long for a call whose last byte is on its way; only a peer that stopped reading gets near it.
ENDING_TIMEOUT_S = 1.0


@dataclass(frozen=True, slots=True)
class Counts:
    """Tokens of one call. Totals include their parts: cache and audio are inside prompt_tokens, reasoning and audio
    inside completion_tokens, in every dialect (on Anthropic's wire `input_tokens` excludes the cache)."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_5m_tokens: int = 0
    cache_write_1h_tokens: int = 0
    reasoning_tokens: int = 0
    audio_input_tokens: int = 0
    audio_output_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Entry:
    """One served call.

    counts: what a provider would bill. A refusal (status >= 400) bills nothing; a whole reply that was started, lost or
    never answered bills in full; a stream bills the prompt and the events written so far, and in full once its
    usage is out. A recording bills what its usage says, else nothing.
    usage: the usage object as it was sent, absurd or not; None when none was sent (see `has_sent_usage`).
    finished: everything planned was handed to the socket, so a scripted cut or hang never finishes.
    has_peer_hung_up: the caller left before that.
    """

    serial: int
    dialect: str
    path: str
    model: str
    is_stream: bool
    marker: str | None
    credential: str | None
    response_id: str
    status: int
    counts: Counts
    usage: JSON | None
    bytes_sent: int
    finished: bool
    has_peer_hung_up: bool
    started_at_s: float
    ended_at_s: float
    headers: Mapping[str, str]
    body: JSON
    raw: bytes

    @property
    def has_sent_usage(self) -> bool:
        return self.usage is not None

    @property
    def prompt_tokens(self) -> int:
        return self.counts.prompt_tokens

    @property
    def completion_tokens(self) -> int:
        return self.counts.completion_tokens

    def to_json(self) -> JSON:
        """Every field; `counts` flattened into its meters, `raw` as text (undecodable bytes replaced)."""
        shown = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "counts"}
        return (
            shown
            | asdict(self.counts)
            | {
                "raw": self.raw.decode("utf-8", "replace"),
                "headers": dict(self.headers),
                "has_sent_usage": self.has_sent_usage,
            }
        )


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over a ledger; `open_calls` are the ones that haven't ended."""

    calls: int
    open_calls: int
    refused: int
    finished: int
    hung_up: int
    with_usage: int
    bytes_sent: int
    counts: Counts

    def to_json(self) -> JSON:
        shown = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "counts"}
        return shown | asdict(self.counts)


@dataclass(slots=True)
class OpenCall:
    """A call in progress: written by the one task that serves it, turned into an `Entry` when it ends."""

    serial: int
    generation: int
    dialect: str
    path: str
    model: str = ""
    is_stream: bool = False
    marker: str | None = None
    credential: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: JSON = field(default_factory=dict)
    raw: bytes = b""
    response_id: str = ""
    status: int = 0
    counts: Counts = field(default_factory=Counts)
    usage: JSON | None = None
    bytes_sent: int = 0
    finished: bool = False
    has_peer_hung_up: bool = False
    is_ending: bool = False
    started_at_s: float = field(default_factory=time.time)

    def to_entry(self) -> Entry:
        values = {f.name: getattr(self, f.name) for f in fields(Entry) if f.name != "ended_at_s"}
        return Entry(**values, ended_at_s=time.time())


class Ledger:
    """Entries in order of arrival; every method may be called from any thread.

    is_lean: keep the numbers but neither headers nor bodies, for runs of a million calls.
    """

    def __init__(self, *, is_lean: bool = False) -> None:
        self._is_lean = is_lean
        self._changed = threading.Condition()
        self._entries: list[Entry] = []
        self._open: set[int] = set()
        self._most_open = 0
        self._ending = 0
        self._serial = 0
        self._generation = 0

    def entries(self) -> tuple[Entry, ...]:
        """All ended calls. A call whose last byte has left is in it: it waits for calls that are just ending."""
        with self._changed:
            self._changed.wait_for(lambda: not self._ending, ENDING_TIMEOUT_S)
            return tuple(sorted(self._entries, key=lambda entry: entry.serial))

    def wait_for(self, count: int, *, timeout_s: float = 15.0) -> tuple[Entry, ...]:
        """The entries once at least `count` calls have ended, for calls whose end the caller can't see.

        Blocks its thread: from a coroutine, `await asyncio.to_thread(ledger.wait_for, 1)`. Raises TimeoutError.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._entries) >= count, timeout_s):
                raise TimeoutError(f"{len(self._entries)} of {count} calls ended within {timeout_s} s")
        return self.entries()

    def wait_for_open(self, count: int, *, timeout_s: float = 15.0) -> None:
        """Return once `count` calls are being served at the same time. Blocks its thread; raises TimeoutError."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._open) >= count, timeout_s):
                raise TimeoutError(f"{len(self._open)} of {count} calls open within {timeout_s} s")

    @property
    def most_open(self) -> int:
        """How many calls have been open at the same time."""
        return self._most_open

    def totals(self) -> Totals:
        """Sums over `entries()`."""
        return sum_up(self.entries(), open_calls=self.open_calls)

    @property
    def open_calls(self) -> int:
        with self._changed:
            return len(self._open)

    def clear(self) -> None:
        """Forget everything; calls that are still open will leave no entry."""
        with self._changed:
            self._entries.clear()
            self._open.clear()
            self._most_open = 0
            self._ending = 0
            self._generation += 1

    def begin(self, *, dialect: str, path: str) -> OpenCall:
        with self._changed:
            self._serial += 1
            self._open.add(self._serial)
            self._most_open = max(self._most_open, len(self._open))
            self._changed.notify_all()
            return OpenCall(self._serial, self._generation, dialect, path)

    def mark_ending(self, call: OpenCall) -> None:
        """Say, before the call's last byte is written, that its entry is about to come."""
        with self._changed:
            if call.generation == self._generation and not call.is_ending:
                call.is_ending = True
                self._ending += 1

    def finish(self, call: OpenCall) -> None:
        if self._is_lean:
            call.headers, call.body, call.raw = {}, {}, b""
        with self._changed:
            if call.generation != self._generation:
                return
            self._ending -= call.is_ending
            self._open.discard(call.serial)
            self._entries.append(call.to_entry())
            self._changed.notify_all()


def sum_up(entries: Sequence[Entry], *, open_calls: int) -> Totals:
    counts = Counts(*(sum(getattr(entry.counts, f.name) for entry in entries) for f in fields(Counts)))
    return Totals(
        calls=len(entries),
        open_calls=open_calls,
        refused=sum(entry.status >= 400 for entry in entries),
        finished=sum(entry.finished for entry in entries),
        hung_up=sum(entry.has_peer_hung_up for entry in entries),
        with_usage=sum(entry.has_sent_usage for entry in entries),
        bytes_sent=sum(entry.bytes_sent for entry in entries),
        counts=counts,
    )
