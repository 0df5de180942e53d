"""The proof that a row of the books is as it was written: a SHA-256 of its canonical text.

The text is one JSON array of the row's values in the order of the fields below, preceded by its version.
docs/billing.md, "Proof of a row", describes it so that it can be recomputed without this code. The fields of a version
never change, or old rows could no longer be checked: to add fields, add a version. Each row stores its version's
number; a version's fields are those of the previous one, followed by new ones.

Pure: the books compute a digest when they write a row, `verify_books` when it reads one.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from typing import Any, NamedTuple
from uuid import UUID

import orjson

VERSION = 2
"""The version that rows are written with."""

DIGEST_FIELDS = ("digest_0", "digest_1", "digest_2", "digest_3", "digest_4", "digest_5", "digest_6", "digest_7")
"""Columns of a row's digest: signed 32-bit words, the most significant first."""

Words = tuple[int, int, int, int, int, int, int, int]

_EIGHT_WORDS = struct.Struct(">8i")


class OpenedFacts(NamedTuple):
    """What a call was opened with, named as the columns are."""

    id: UUID
    request_id: UUID
    attempt: int
    account_id: int
    api_key_id: int
    provider: str
    model: str
    upstream_model: str
    dialect: str
    opened_at: datetime
    local_day: date
    price_id: int | None
    # since usage/2
    provider_instance: str = ""
    end_user: str = ""
    tags: Mapping[str, str] = {}


class ClosedFacts(NamedTuple):
    """How a call ended, named as the columns are. cost, upstream_cost: pico-units of USD.

    The token counts are listed one by one: a new one in `TokenCounts` must not change this version.
    """

    status: str
    usage_source: str
    outcome: str
    prompt_tokens: int
    completion_tokens: int
    cache_read_tokens: int
    cache_write_5m_tokens: int
    cache_write_1h_tokens: int
    reasoning_tokens: int
    audio_input_tokens: int
    audio_output_tokens: int
    extra_meters: Mapping[str, int]
    rate_set_id: int | None
    cost: int | None
    service_tier: str
    is_billable: bool
    is_disputed: bool
    # since usage/2
    speed: str = ""
    inference_geo: str = ""
    flags: str = ""
    upstream_cost: int | None = None


class AdjustmentFacts(NamedTuple):
    """A correction. Counts, extra_meters and cost (pico-units of USD) are signed differences; other values replace
    those known before.
    """

    usage_id: UUID
    source: str
    prompt_tokens: int
    completion_tokens: int
    cache_read_tokens: int
    cache_write_5m_tokens: int
    cache_write_1h_tokens: int
    reasoning_tokens: int
    audio_input_tokens: int
    audio_output_tokens: int
    cost: int | None
    rate_set_id: int | None
    rerating_id: int | None
    is_billable: bool
    reason: str
    decided_by_id: int | None
    recorded_at: datetime
    # since adjustment/2
    extra_meters: Mapping[str, int] = {}
    service_tier: str = ""
    speed: str = ""
    inference_geo: str = ""
    flags: str = ""


def usage_text(opened: OpenedFacts, closed: ClosedFacts, *, version: int = VERSION) -> bytes:
    """The canonical text of a closed row. Raises TypeError for values without one, such as integers beyond 64 bits."""
    said = (*_said(opened, version, first=_OPENED_1), *_said(closed, version, first=_CLOSED_1))
    return _dump((f"usage/{version}", *said), opened.opened_at)


def adjustment_text(facts: AdjustmentFacts, *, version: int = VERSION) -> bytes:
    """The canonical text of an adjustment. Raises TypeError for values without one."""
    return _dump((f"adjustment/{version}", *_said(facts, version, first=_ADJUSTED_1)), facts.recorded_at)


_OPENED_1 = OpenedFacts._fields.index("price_id") + 1
_CLOSED_1 = ClosedFacts._fields.index("is_disputed") + 1
_ADJUSTED_1 = AdjustmentFacts._fields.index("recorded_at") + 1
"""How many of the fields make up version 1."""


def _said(facts: tuple[Any, ...], version: int, *, first: int) -> tuple[Any, ...]:
    """The fields that a version covers. first: how many of them version 1 covers.

    A row of version 1 must have nothing in later columns: no digest would prove it.
    """
    if version == VERSION:
        return facts
    if version != 1 or any(facts[first:]):
        raise TypeError(f"version {version} has no text for these values")
    return facts[:first]


def digest_words(text: bytes) -> Words:
    """SHA-256 of a canonical text, in the form of the columns."""
    return _EIGHT_WORDS.unpack(hashlib.sha256(text).digest())


def digest_hex(sums: Iterable[int]) -> str:
    """64 hex digits of eight words, or of eight sums of words: each is taken modulo 2**32.

    For one row that is its usual SHA-256; for a set it is the set's digest. Raises ValueError unless there are eight.
    """
    digits = [f"{total % 2**32:08x}" for total in sums]
    if len(digits) != len(DIGEST_FIELDS):
        raise ValueError(f"a digest has {len(DIGEST_FIELDS)} words, not {len(digits)}")
    return "".join(digits)


def words_of_hex(text: str) -> tuple[int, ...]:
    """The inverse of `digest_hex`, as unsigned words. Raises ValueError if the text isn't 64 hex digits."""
    data = bytes.fromhex(text)
    if len(data) != 4 * len(DIGEST_FIELDS):
        raise ValueError(f"a digest has {8 * len(DIGEST_FIELDS)} hex digits, not {len(text)}")
    return struct.unpack(">8I", data)


def _dump(values: tuple[object, ...], moment: datetime) -> bytes:
    """moment: the one among the values. orjson writes it in our form and fast, but omits a zero fraction."""
    is_usual = moment.tzinfo is UTC and moment.microsecond != 0
    times = 0 if is_usual else orjson.OPT_PASSTHROUGH_DATETIME
    return orjson.dumps(values, _text_of_time, orjson.OPT_SORT_KEYS | times)


def _text_of_time(value: object) -> str:
    """ISO 8601, a moment in UTC with six decimals of the second."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="microseconds")
    if isinstance(value, date):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} has no canonical text")
