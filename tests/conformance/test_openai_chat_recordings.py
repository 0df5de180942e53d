"""Recorded traffic of OpenAI's chat completions, replayed through a running gateway.

The recordings are no part of this repository: LLM_TRAFFIC_DIR says where they are, else `../shared/traffic` is looked
for. Each is sent to the gateway as it was sent to OpenAI, in front of an upstream that serves the recorded reply.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from decimal import Decimal
from io import StringIO
from pathlib import Path
from statistics import mean, median

import httpx2
import orjson
import pytest
from django.core.management import call_command
from pytest_django.plugin import DjangoDbBlocker

from llm.dialects.openai_chat import OPENAI_CHAT
from llm.enums import Meter, UsageSource, UsageStatus
from llm.keys import create_key, get_or_create_account
from llm.models import Rate, Usage
from llm.providers.counting import count_message_tokens, count_text_tokens
from llm.types import ChatMessage
from tests.books import all_closed_usage
from tests.fakes import Counts, FakeUpstream, Recording
from tests.fakes.recordings import load
from tests.gateway_process import GatewayPool

# Without the mark there would be no test database for `replays`, which fills it before any test begins.
# Whichever process has a test of them replays them all: one is enough.
pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.django_db, pytest.mark.xdist_group("recordings")]

_BESIDE_THE_REPOSITORY = Path(__file__).resolve().parents[3] / "shared" / "traffic"
DIRECTORY = Path(os.environ.get("LLM_TRAFFIC_DIR") or _BESIDE_THE_REPOSITORY)
RECORDINGS = load(DIRECTORY, "openai.chat")


@dataclass(frozen=True)
class Replay:
    """What the caller got for a recording, the row it left, and the rates that stand on the row."""

    reply: httpx2.Response
    row: Usage
    rates: Mapping[str, Decimal]


def each(*recordings: Recording) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("recording", recordings, ids=[recording.id for recording in recordings])


SERVED = [recording for recording in RECORDINGS if recording.status == 200]
REFUSED = [recording for recording in RECORDINGS if recording.status != 200]
REPORTED = [recording for recording in SERVED if recording.usage() is not None]
UNREPORTED = [recording for recording in SERVED if recording.usage() is None]


@pytest.fixture(scope="module")
def replays(
    _session_upstream: FakeUpstream,
    _gateway_pool: GatewayPool,
    gateway_environment: dict[str, str],
    django_db_blocker: DjangoDbBlocker,
) -> Iterator[Mapping[str, Replay]]:
    """All recordings, replayed once, with the prices that a new gateway imports."""
    _session_upstream.reset()
    with django_db_blocker.unblock():
        try:
            yield replay_all(_session_upstream, _gateway_pool.get(gateway_environment).url)
        finally:
            call_command("flush", verbosity=0, interactive=False, reset_sequences=False)


def replay_all(upstream: FakeUpstream, url: str) -> dict[str, Replay]:
    call_command("import_prices", stdout=StringIO())
    _, secret = create_key(get_or_create_account("acme"), name="replays")
    replies = {}
    with httpx2.Client(trust_env=False, timeout=30, headers={"authorization": f"Bearer {secret}"}) as client:
        for recording in RECORDINGS:
            upstream.serve_recording(recording)
            replies[recording.id] = client.post(f"{url}{recording.path}", content=orjson.dumps(recording.request))
    rows = {str(row.id): row for row in all_closed_usage()}
    assert len(rows) == len(RECORDINGS)
    return {
        name: Replay(reply, rows[reply.headers["x-llm-call-id"]], rates_of(rows[reply.headers["x-llm-call-id"]]))
        for name, reply in replies.items()
    }


def rates_of(row: Usage) -> dict[str, Decimal]:
    """USD a token, by meter."""
    rates = Rate.objects.filter(rate_set=row.rate_set_id)
    return {rate.meter: rate.amount / rate.per_units for rate in rates}


def test_there_are_recordings() -> None:
    if not RECORDINGS:
        pytest.skip(f"no recordings of openai.chat in {DIRECTORY}: set LLM_TRAFFIC_DIR to the folder that has them")


# --- What the caller gets ---------------------------------------------------------------------------------------------


@each(*SERVED)
def test_the_caller_gets_the_recorded_reply_to_the_byte(replays: Mapping[str, Replay], recording: Recording) -> None:
    reply = replays[recording.id].reply
    assert (reply.status_code, reply.content) == (200, recording.body)
    assert reply.headers["content-type"].split(";")[0] == recording.headers["content-type"].split(";")[0]


@each(*REFUSED)
def test_the_caller_gets_the_recorded_refusal(replays: Mapping[str, Replay], recording: Recording) -> None:
    reply = replays[recording.id].reply
    assert (reply.status_code, reply.json()) == (recording.status, orjson.loads(recording.body))


# --- What the books hold ----------------------------------------------------------------------------------------------


@each(*REPORTED)
def test_the_books_hold_the_recorded_usage(replays: Mapping[str, Replay], recording: Recording) -> None:
    row = replays[recording.id].row
    held = Counts(**{field.name: getattr(row, field.name) for field in fields(Counts)})
    assert held == recording.counts()
    assert (row.status, row.usage_source) == (UsageStatus.SETTLED, UsageSource.REPORTED)
    assert (row.extra_meters, row.is_disputed, row.is_billable) == ({}, False, True)


@each(*UNREPORTED)
def test_the_books_hold_an_estimate_that_says_so_where_no_usage_was_recorded(
    replays: Mapping[str, Replay], recording: Recording
) -> None:
    row = replays[recording.id].row
    assert (row.status, row.usage_source, row.outcome) == (UsageStatus.ESTIMATED, UsageSource.ESTIMATED, "ok")
    assert row.prompt_tokens > 0
    assert (row.completion_tokens > 0) == bool(text_of(recording))


@each(*REFUSED)
def test_the_books_hold_nothing_to_pay_for_a_refusal(replays: Mapping[str, Replay], recording: Recording) -> None:
    row = replays[recording.id].row
    assert (row.status, row.usage_source, row.outcome) == (UsageStatus.SETTLED, UsageSource.NONE, "upstream_refused")
    assert (row.total_tokens, row.cost, row.upstream_status) == (0, Decimal(0), recording.status)


@each(*RECORDINGS)
def test_the_books_name_the_call_as_the_provider_does(replays: Mapping[str, Replay], recording: Recording) -> None:
    row = replays[recording.id].row
    assert (row.model, row.upstream_model) == (recording.request["model"], recording.request["model"])
    assert row.is_stream is recording.is_stream
    first = first_document(recording) if recording.status == 200 else {}
    assert row.upstream_response_id == first.get("id", "")
    assert row.reported_model == first.get("model", "")


@each(*SERVED)
def test_the_cost_is_the_usage_times_the_price_on_the_row(replays: Mapping[str, Replay], recording: Recording) -> None:
    row, rates = replays[recording.id].row, replays[recording.id].rates
    if row.cost is None:
        # No imported list has this model, or not what the call used of it.
        assert row.rate_set_id is None
        return
    cached_rate = rates.get(Meter.CACHE_READ, rates[Meter.INPUT])
    plain = row.prompt_tokens - row.cache_read_tokens - row.audio_input_tokens
    spoken = row.audio_input_tokens * rates.get(Meter.AUDIO_INPUT, Decimal(0))
    answered = (row.completion_tokens - row.audio_output_tokens) * rates[Meter.OUTPUT]
    answered += row.audio_output_tokens * rates.get(Meter.AUDIO_OUTPUT, Decimal(0))
    assert row.cost == plain * rates[Meter.INPUT] + row.cache_read_tokens * cached_rate + spoken + answered
    assert row.cost > 0


@each(*SERVED)
def test_no_recorded_name_of_a_model_passes_for_another_model(
    replays: Mapping[str, Replay], recording: Recording
) -> None:
    """Dated names and aliases: none of them has another price than the one that was asked for."""
    row = replays[recording.id].row
    assert (row.flags, row.upstream_cost) == ("", None)


# --- How well we count for ourselves ----------------------------------------------------------------------------------


def test_estimates_are_held_against_recorded_usage(capsys: pytest.CaptureFixture[str]) -> None:
    """Says how far off they are; nothing is asserted, since no tokenizer is claimed."""
    off: dict[str, list[float]] = {"prompt": [], "completion": []}
    for recording in REPORTED:
        request = OPENAI_CHAT.parse(orjson.dumps(recording.request))
        prompt = count_message_tokens((ChatMessage(role="user", content=OPENAI_CHAT.prompt_text(request)),))
        counts = recording.counts()
        off["prompt"].append((prompt - counts.prompt_tokens) / counts.prompt_tokens)
        if visible := counts.completion_tokens - counts.reasoning_tokens:
            off["completion"].append((count_text_tokens(text_of(recording)) - visible) / visible)
    with capsys.disabled():
        for kind, errors in off.items():
            if errors:
                sizes = [abs(error) for error in errors]
                print(
                    f"\n{kind} tokens, {len(errors)} estimates: relative error {mean(sizes):.1%} on average,"
                    f" {median(sizes):.1%} in the middle, bias {mean(errors):+.1%}"
                )


def text_of(recording: Recording) -> str:
    """What the model generated."""
    if not recording.is_event_stream:
        return OPENAI_CHAT.whole_text(recording.body)
    reader = OPENAI_CHAT.stream_reader(OPENAI_CHAT.parse(orjson.dumps(recording.request)))
    reader.feed(recording.body)
    return reader.output_text()


def first_document(recording: Recording) -> dict[str, str]:
    """The reply, or a stream's first chunk that has an id."""
    if not recording.is_event_stream:
        return dict(orjson.loads(recording.body))
    datas = [event.split(b"data:", 1)[1].strip() for event in recording.events() if b"data:" in event]
    documents = [orjson.loads(data) for data in datas if data != b"[DONE]"]
    return next(document for document in documents if document.get("id"))
