"""Recorded traffic of real providers, replayed through a running gateway.

The recordings are no part of this repository: LLM_TRAFFIC_DIR says where they are, else `../shared/traffic` is looked
for. Each is sent to the gateway as it was sent to its provider, in front of an upstream that serves the recorded reply.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from decimal import Decimal
from io import StringIO
from pathlib import Path
from statistics import mean, median
from typing import Any, cast

import httpx2
import orjson
from django.core.management import call_command

from llm.dialects.base import PassThrough, StreamedPassThrough
from llm.enums import Meter, UsageSource, UsageStatus
from llm.keys import create_key, get_or_create_account
from llm.models import Rate, Usage
from llm.providers.counting import count_message_tokens, count_text_tokens
from llm.types import ChatMessage
from tests.books import all_closed_usage
from tests.fakes import Counts, FakeUpstream, Recording
from tests.fakes.recordings import load
from tests.gateway_process import GatewayPool

_BESIDE_THE_REPOSITORY = Path(__file__).resolve().parents[3] / "shared" / "traffic"
DIRECTORY = Path(os.environ.get("LLM_TRAFFIC_DIR") or _BESIDE_THE_REPOSITORY)


@dataclass(frozen=True)
class Replay:
    """What the caller got for a recording, the row it left, and the rates that stand on the row."""

    reply: httpx2.Response
    row: Usage
    rates: Mapping[str, Decimal]


@dataclass(frozen=True)
class Traffic:
    """The recordings of one dialect. environment: of the gateway in front of such a provider.

    tells_id: the object of a reply, or of a stream's event, that says the reply's id and model. units_of: what a
    recorded call has used beside tokens, by meter. tier_of: how it was served, where a recording is asked for that.
    own_members: of a refusal, those that are ours (an id of the request), not the provider's.
    """

    wire: PassThrough
    environment: Mapping[str, str] = field(default_factory=dict)
    tells_id: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict
    units_of: Callable[[Recording], Mapping[str, int]] = lambda _: {}
    tier_of: Callable[[Recording], str] | None = None
    own_members: Sequence[str] = ()

    def __str__(self) -> str:
        return self.wire.dialect.value

    @property
    def recordings(self) -> tuple[Recording, ...]:
        return load(DIRECTORY, self.wire.dialect.value)

    @property
    def served(self) -> list[Recording]:
        return [recording for recording in self.recordings if recording.status == 200]

    @property
    def refused(self) -> list[Recording]:
        return [recording for recording in self.recordings if recording.status != 200]

    def replay(self, upstream: FakeUpstream, pool: GatewayPool, environment: Mapping[str, str]) -> Mapping[str, Replay]:
        """All recordings, with the prices that a new gateway imports. It leaves an empty database."""
        upstream.reset()
        try:
            return self._replay_all(upstream, pool.get({**environment, **self.environment}).url)
        finally:
            call_command("flush", verbosity=0, interactive=False, reset_sequences=False)

    def _replay_all(self, upstream: FakeUpstream, url: str) -> dict[str, Replay]:
        call_command("import_prices", stdout=StringIO())
        _, secret = create_key(get_or_create_account("acme"), name="replays")
        replies = {}
        with httpx2.Client(trust_env=False, timeout=30, headers={"authorization": f"Bearer {secret}"}) as client:
            for recording in self.recordings:
                upstream.serve_recording(recording)
                replies[recording.id] = client.post(f"{url}{recording.path}", content=orjson.dumps(recording.request))
        rows = {str(row.id): row for row in all_closed_usage()}
        assert len(rows) == len(self.recordings)
        return {name: _replay(reply, rows[reply.headers["x-llm-call-id"]]) for name, reply in replies.items()}

    def check_served(self, replay: Replay, recording: Recording) -> None:
        """The caller gets the recorded bytes, and the books hold the recorded usage."""
        assert (replay.reply.status_code, replay.reply.content) == (200, recording.body)
        assert replay.reply.headers["content-type"].split(";")[0] == recording.headers["content-type"].split(";")[0]
        _check_names(replay.row, recording, self.first_document(recording))
        if recording.usage() is None:
            self._check_estimate(replay.row, recording)
        else:
            _check_usage(replay.row, recording)
            assert replay.row.extra_meters == self.units_of(recording)
        if self.tier_of is not None:
            assert replay.row.service_tier == self.tier_of(recording)
        _check_cost(replay.row, replay.rates)

    def check_refused(self, replay: Replay, recording: Recording) -> None:
        reply, row, own = replay.reply, replay.row, self.own_members
        recorded = {name: value for name, value in orjson.loads(recording.body).items() if name not in own}
        told = {name: value for name, value in reply.json().items() if name not in own}
        assert (reply.status_code, told) == (recording.status, recorded)
        _check_names(row, recording, {})
        assert (row.status, row.usage_source, row.outcome) == (
            UsageStatus.SETTLED,
            UsageSource.NONE,
            "upstream_refused",
        )
        assert (row.total_tokens, row.cost, row.upstream_status) == (0, Decimal(0), recording.status)

    def _check_estimate(self, row: Usage, recording: Recording) -> None:
        assert (row.status, row.usage_source, row.outcome) == (UsageStatus.ESTIMATED, UsageSource.ESTIMATED, "ok")
        assert row.prompt_tokens > 0
        assert (row.completion_tokens > 0) == bool(self.text_of(recording))

    def text_of(self, recording: Recording) -> str:
        """What the model generated."""
        if not recording.is_event_stream:
            return self.wire.whole_text(recording.body)
        reader = cast("StreamedPassThrough", self.wire).stream_reader(self.wire.parse(orjson.dumps(recording.request)))
        reader.feed(recording.body)
        return reader.output_text()

    def first_document(self, recording: Recording) -> Mapping[str, Any]:
        """The reply, or what a stream's first event says that has an id."""
        if not recording.is_event_stream:
            return self.tells_id(orjson.loads(recording.body))
        documents = map(self.tells_id, documents_of(recording))
        return next(document for document in documents if document.get("id"))

    def print_errors_of_estimates(self) -> None:
        """How far off they are from the recorded usage; nothing is asserted, since no tokenizer is claimed."""
        off: dict[str, list[float]] = {"prompt": [], "completion": []}
        for recording in self.served:
            if recording.usage() is None:
                continue
            request = self.wire.parse(orjson.dumps(recording.request))
            prompt = count_message_tokens((ChatMessage(role="user", content=self.wire.prompt_text(request)),))
            counts = recording.counts()
            off["prompt"].append((prompt - counts.prompt_tokens) / counts.prompt_tokens)
            if visible := counts.completion_tokens - counts.reasoning_tokens:
                off["completion"].append((count_text_tokens(self.text_of(recording)) - visible) / visible)
        for kind, errors in off.items():
            if errors:
                sizes = [abs(error) for error in errors]
                print(
                    f"\n{kind} tokens, {len(errors)} estimates: relative error {mean(sizes):.1%} on average,"
                    f" {median(sizes):.1%} in the middle, bias {mean(errors):+.1%}"
                )


def documents_of(recording: Recording) -> list[dict[str, Any]]:
    """Those of a recorded stream's events, in order."""
    datas = [event.split(b"data:", 1)[1].strip() for event in recording.events() if b"data:" in event]
    return [orjson.loads(data) for data in datas if data != b"[DONE]"]


def _replay(reply: httpx2.Response, row: Usage) -> Replay:
    """With the row's rates in USD a token, by meter."""
    rates = Rate.objects.filter(rate_set=row.rate_set_id)
    return Replay(reply, row, {rate.meter: rate.amount / rate.per_units for rate in rates})


def _check_names(row: Usage, recording: Recording, first: Mapping[str, Any]) -> None:
    """first: the first document of the reply."""
    assert (row.dialect, row.model, row.upstream_model) == (recording.dialect, *[recording.request["model"]] * 2)
    assert row.is_stream is recording.is_stream
    assert row.upstream_response_id == first.get("id", "")
    assert row.reported_model == first.get("model", "")


def _check_usage(row: Usage, recording: Recording) -> None:
    held = Counts(**{field.name: getattr(row, field.name) for field in fields(Counts)})
    assert held == recording.counts()
    assert (row.status, row.usage_source) == (UsageStatus.SETTLED, UsageSource.REPORTED)
    assert (row.is_disputed, row.is_billable) == (False, True)


def _check_cost(row: Usage, rates: Mapping[str, Decimal]) -> None:
    # Dated names and aliases: none of them has another price than the one that was asked for.
    is_tier_unpriced = row.cost is None and row.service_tier not in ("", "default", "standard")
    assert (row.flags, row.upstream_cost) == ("tier_unpriced" if is_tier_unpriced else "", None)
    if row.cost is None:
        # No imported list has this model, or not what the call used of it.
        assert row.rate_set_id is None
        return
    tokens = {
        Meter.CACHE_READ: row.cache_read_tokens,
        Meter.CACHE_WRITE_5M: row.cache_write_5m_tokens,
        Meter.CACHE_WRITE_1H: row.cache_write_1h_tokens,
        Meter.AUDIO_INPUT: row.audio_input_tokens,
        Meter.AUDIO_OUTPUT: row.audio_output_tokens,
        Meter.OUTPUT: row.completion_tokens - row.audio_output_tokens,
    }
    plain = row.prompt_tokens - sum(tokens[meter] for meter in tokens if meter.value.startswith(("cache", "audio_in")))
    # What was read from a cache costs as other input does where the list says nothing else of it.
    known = {Meter.CACHE_READ: rates[Meter.INPUT], **rates}
    amounts = {**tokens, **row.extra_meters}
    cost = plain * rates[Meter.INPUT] + sum(number * known[meter] for meter, number in amounts.items() if number)
    assert row.cost == cost > 0
