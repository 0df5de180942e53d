"""The canonical text of a row and its digest: what is written once can be recomputed by anybody, years later."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from django.conf import settings

from llm.digests import (
    DIGEST_FIELDS,
    AdjustmentFacts,
    ClosedFacts,
    OpenedFacts,
    adjustment_text,
    digest_hex,
    digest_words,
    usage_text,
)
from llm.types import TOKEN_FIELDS

OPENED = OpenedFacts(
    id=UUID("019ab3c4-d5e6-7f80-9a1b-2c3d4e5f6071"),
    request_id=UUID("019ab3c4-d5e6-7f80-8a1b-2c3d4e5f6072"),
    attempt=1,
    account_id=3,
    api_key_id=5,
    provider="openai",
    model="gpt-4o",
    upstream_model="gpt-4o-2024-08-06",
    dialect="openai.chat",
    opened_at=datetime(2026, 11, 30, 23, 59, 59, 123456, UTC),
    local_day=date(2026, 12, 1),
    price_id=7,
    provider_instance="main",
    end_user="8a1b2c3d4e5f60718a1b2c3d4e5f6071",
    tags={"team": "search", "feature": "chat"},
)
CLOSED = ClosedFacts(
    status="settled",
    usage_source="reported",
    outcome="ok",
    prompt_tokens=1000,
    completion_tokens=200,
    cache_read_tokens=400,
    cache_write_5m_tokens=0,
    cache_write_1h_tokens=0,
    reasoning_tokens=0,
    audio_input_tokens=0,
    audio_output_tokens=0,
    extra_meters={"web_searches": 2, "images": 1},
    rate_set_id=9,
    cost=4_000_000_000,
    service_tier="default",
    is_billable=True,
    is_disputed=False,
    speed="fast",
    inference_geo="us",
    flags="priced_as_reported tier_unpriced",
    upstream_cost=3_999_999_999,
)
ADJUSTMENT = AdjustmentFacts(
    usage_id=OPENED.id,
    source="decision",
    prompt_tokens=-10,
    completion_tokens=5,
    cache_read_tokens=0,
    cache_write_5m_tokens=0,
    cache_write_1h_tokens=0,
    reasoning_tokens=0,
    audio_input_tokens=0,
    audio_output_tokens=0,
    cost=None,
    rate_set_id=8,
    rerating_id=None,
    is_billable=True,
    reason="„Their“ report,\nline 2",
    decided_by_id=11,
    recorded_at=datetime(2026, 12, 2, 8, 0, 0, 0, UTC),
    extra_meters={"web_searches": -1},
    service_tier="default",
    speed="fast",
    inference_geo="us",
    flags="tier_unpriced",
)
# As rows of version 1 have it: nothing in the columns that came later.
OPENED_1, CLOSED_1, ADJUSTMENT_1 = (
    OpenedFacts(*OPENED[:12]),
    ClosedFacts(*CLOSED[:17]),
    AdjustmentFacts(*ADJUSTMENT[:17]),
)
# Written by hand, their digests by sha256sum. If they change, no row that was written before can be proved.
USAGE_1_TEXT = (
    '["usage/1","019ab3c4-d5e6-7f80-9a1b-2c3d4e5f6071","019ab3c4-d5e6-7f80-8a1b-2c3d4e5f6072",1,3,5,"openai","gpt-4o",'
    '"gpt-4o-2024-08-06","openai.chat","2026-11-30T23:59:59.123456+00:00","2026-12-01",7,"settled","reported","ok",'
    '1000,200,400,0,0,0,0,0,{"images":1,"web_searches":2},9,4000000000,"default",true,false]'
)
USAGE_1_HEX = "6cb6c341f1f55a52b68c5198690896caf65ff953a3201c3fa0e2eabaff74158e"
ADJUSTMENT_1_TEXT = (
    '["adjustment/1","019ab3c4-d5e6-7f80-9a1b-2c3d4e5f6071","decision",-10,5,0,0,0,0,0,0,null,8,null,true,'
    '"„Their“ report,\\nline 2",11,"2026-12-02T08:00:00.000000+00:00"]'
)
ADJUSTMENT_1_HEX = "cd7548ca22344da1633204c1f71ed53d01e0b0a7f53640631e1ede7e8d17d00d"


USAGE_TEXT = (
    '["usage/2","019ab3c4-d5e6-7f80-9a1b-2c3d4e5f6071","019ab3c4-d5e6-7f80-8a1b-2c3d4e5f6072",1,3,5,"openai","gpt-4o",'
    '"gpt-4o-2024-08-06","openai.chat","2026-11-30T23:59:59.123456+00:00","2026-12-01",7,"main",'
    '"8a1b2c3d4e5f60718a1b2c3d4e5f6071",{"feature":"chat","team":"search"},"settled","reported","ok",'
    '1000,200,400,0,0,0,0,0,{"images":1,"web_searches":2},9,4000000000,"default",true,false,'
    '"fast","us","priced_as_reported tier_unpriced",3999999999]'
)
USAGE_HEX = "3f564deb85cea4bb65d7b86c383e4ffd463121861cbccc500bc67af4af9c2daa"
ADJUSTMENT_TEXT = (
    '["adjustment/2","019ab3c4-d5e6-7f80-9a1b-2c3d4e5f6071","decision",-10,5,0,0,0,0,0,0,null,8,null,true,'
    '"„Their“ report,\\nline 2",11,"2026-12-02T08:00:00.000000+00:00",'
    '{"web_searches":-1},"default","fast","us","tier_unpriced"]'
)
ADJUSTMENT_HEX = "e45e7db6fce0b6114f6c83e530147377d20974aec2dfb73bcd493e6e69e2ebe2"


@pytest.mark.parametrize(
    ("opened", "closed", "version", "text", "digest"),
    [(OPENED_1, CLOSED_1, 1, USAGE_1_TEXT, USAGE_1_HEX), (OPENED, CLOSED, 2, USAGE_TEXT, USAGE_HEX)],
)
def test_the_text_and_digest_of_a_call_never_change(
    opened: OpenedFacts, closed: ClosedFacts, version: int, text: str, digest: str
) -> None:
    assert usage_text(opened, closed, version=version).decode() == text
    assert digest_hex(digest_words(usage_text(opened, closed, version=version))) == digest


@pytest.mark.parametrize(
    ("facts", "version", "text", "digest"),
    [(ADJUSTMENT_1, 1, ADJUSTMENT_1_TEXT, ADJUSTMENT_1_HEX), (ADJUSTMENT, 2, ADJUSTMENT_TEXT, ADJUSTMENT_HEX)],
)
def test_the_text_and_digest_of_an_adjustment_never_change(
    facts: AdjustmentFacts, version: int, text: str, digest: str
) -> None:
    assert adjustment_text(facts, version=version).decode() == text
    assert digest_hex(digest_words(adjustment_text(facts, version=version))) == digest


def test_rows_are_written_with_the_current_version() -> None:
    assert usage_text(OPENED, CLOSED).decode() == USAGE_TEXT
    assert adjustment_text(ADJUSTMENT).decode() == ADJUSTMENT_TEXT


@pytest.mark.parametrize("name", OpenedFacts._fields[12:] + ClosedFacts._fields[17:])
def test_a_call_of_version_1_has_nothing_in_later_columns(name: str) -> None:
    """It would be proved by nothing, and could be changed without a trace."""
    everything = {**OPENED._asdict(), **CLOSED._asdict()}
    opened, closed = OPENED_1, CLOSED_1
    if name in OpenedFacts._fields:
        opened = OPENED_1._replace(**{name: everything[name]})
    else:
        closed = CLOSED_1._replace(**{name: everything[name]})
    with pytest.raises(TypeError, match="version 1 has no text for these values"):
        usage_text(opened, closed, version=1)


@pytest.mark.parametrize("name", AdjustmentFacts._fields[17:])
def test_an_adjustment_of_version_1_has_nothing_in_later_columns(name: str) -> None:
    with pytest.raises(TypeError, match="version 1 has no text for these values"):
        adjustment_text(ADJUSTMENT_1._replace(**{name: getattr(ADJUSTMENT, name)}), version=1)


@pytest.mark.parametrize("version", [0, 3])
def test_there_is_no_other_version(version: int) -> None:
    with pytest.raises(TypeError):
        usage_text(OPENED_1, CLOSED_1, version=version)
    with pytest.raises(TypeError):
        adjustment_text(ADJUSTMENT_1, version=version)


def test_the_documentation_shows_these_very_calls() -> None:
    page = (Path(settings.BASE_DIR) / "docs/billing.md").read_text()
    for text in (USAGE_1_TEXT, USAGE_1_HEX, USAGE_TEXT, USAGE_HEX):
        assert text in page


def test_any_json_writer_gives_the_same_text() -> None:
    model = 'naïve ✓ "quoted" \\ / \x7f\u2028 🦙'
    values = ["usage/2", *map(str, OPENED[:2]), *OPENED[2:6], model, *OPENED[7:9]]
    values += ["2026-11-30T23:59:59.123456+00:00", "2026-12-01", *OPENED[11:], *CLOSED]
    by_stdlib = json.dumps(values, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    assert usage_text(OPENED._replace(model=model), CLOSED).decode() == by_stdlib


OTHER: dict[type, Any] = {
    UUID: UUID(int=1),
    int: 77,
    str: "x",
    bool: None,
    dict: {},
    datetime: datetime(2000, 1, 1, tzinfo=UTC),
    date: date(2000, 1, 1),
}


def each_change(facts: tuple[Any, ...]) -> Iterator[list[Any]]:
    for index, value in enumerate(facts):
        yield [*facts[:index], OTHER[type(value)], *facts[index + 1 :]]


def test_each_value_counts() -> None:
    texts = {usage_text(OPENED, CLOSED)}
    texts |= {usage_text(OpenedFacts._make(changed), CLOSED) for changed in each_change(OPENED)}
    texts |= {usage_text(OPENED, ClosedFacts._make(changed)) for changed in each_change(CLOSED)}
    assert len(texts) == 1 + len(OPENED) + len(CLOSED)


def test_neighbours_cannot_be_mistaken_for_each_other() -> None:
    one = OPENED._replace(provider='a","b', model="c")
    other = OPENED._replace(provider="a", model='b","c')
    assert usage_text(one, CLOSED) != usage_text(other, CLOSED)


def test_every_kind_of_token_is_covered() -> None:
    """A new one needs a new version of the text; until then its rows would not be proved by their digest."""
    assert set(TOKEN_FIELDS) <= set(ClosedFacts._fields)
    assert set(TOKEN_FIELDS) <= set(AdjustmentFacts._fields)


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (datetime(2026, 11, 30, 23, 59, 59, 1, UTC), "2026-11-30T23:59:59.000001+00:00"),
        (datetime(2026, 11, 30, 23, 59, 59, 0, UTC), "2026-11-30T23:59:59.000000+00:00"),
        (datetime(2026, 12, 1, 5, 29, 59, 7, timezone(timedelta(hours=5.5))), "2026-11-30T23:59:59.000007+00:00"),
    ],
)
def test_a_moment_has_one_text_whatever_its_zone_and_fraction(moment: datetime, text: str) -> None:
    assert json.loads(usage_text(OPENED._replace(opened_at=moment), CLOSED))[10:12] == [text, "2026-12-01"]
    assert json.loads(adjustment_text(ADJUSTMENT._replace(recorded_at=moment)))[17] == text


def test_meters_have_one_order() -> None:
    turned = CLOSED._replace(extra_meters={"images": 1, "web_searches": 2})
    assert list(turned.extra_meters) != list(CLOSED.extra_meters)
    assert usage_text(OPENED, turned) == usage_text(OPENED, CLOSED)


@pytest.mark.parametrize("value", [2**64, 1.5j, "\ud800"])
def test_what_no_column_holds_has_no_text(value: object) -> None:
    with pytest.raises(TypeError):
        usage_text(OPENED, CLOSED._replace(extra_meters={"x": value}))  # type: ignore[dict-item]


# --- Words and sums ---------------------------------------------------------------------------------------------------


def test_words_are_those_of_sha_256() -> None:
    words = digest_words(b"abc")
    assert len(words) == len(DIGEST_FIELDS) == 8
    assert words[0] == 0xBA7816BF - 2**32
    assert words[7] == 0xF20015AD - 2**32
    assert words[2] == 0x414140DE
    assert digest_hex(words) == hashlib.sha256(b"abc").hexdigest()
    assert all(-(2**31) <= word < 2**31 for word in words)


def test_the_digest_of_a_set_is_that_of_its_sums() -> None:
    """Modulo 2**32, word by word, so that it does not matter how the set is cut into pieces, or in which order."""
    digests = [digest_words(str(number).encode()) for number in range(1000)]
    sums = [sum(words) for words in zip(*digests, strict=True)]
    expected = [sum(word % 2**32 for word in words) % 2**32 for words in zip(*digests, strict=True)]
    assert digest_hex(sums) == "".join(f"{total:08x}" for total in expected)
    halves = [[sum(words) for words in zip(*half, strict=True)] for half in (digests[500:], digests[:500])]
    assert digest_hex(map(sum, zip(*halves, strict=True))) == digest_hex(sums)
    assert digest_hex([sum(words) for words in zip(*digests[1:], strict=True)]) != digest_hex(sums)


def test_the_digest_of_nothing_is_zero() -> None:
    assert digest_hex([0] * 8) == "0" * 64


@pytest.mark.parametrize("count", [0, 7, 9])
def test_a_digest_has_eight_words(count: int) -> None:
    with pytest.raises(ValueError, match=f"not {count}"):
        digest_hex([1] * count)
