"""Recorded traffic of real providers: the caller gets the recorded bytes, and the books the recorded usage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
import pytest
from pytest_django.plugin import DjangoDbBlocker

from llm.dialects.anthropic_messages.wire import ANTHROPIC_MESSAGES
from llm.dialects.openai_chat.wire import OPENAI_CHAT
from llm.dialects.openai_embeddings.wire import OPENAI_EMBEDDINGS
from llm.dialects.openai_responses.wire import OPENAI_RESPONSES
from tests.conformance.replaying import DIRECTORY, Replay, Traffic, documents_of
from tests.fakes import FakeUpstream, Recording
from tests.gateway_process import GatewayPool

# Without the mark for the database there would be none for the replays, which fill it before any test begins.
# Whichever process has a test of them replays them all: one is enough.
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.wire,
    pytest.mark.slow,
    pytest.mark.django_db,
    pytest.mark.xdist_group("recordings"),
]

FREE_ACTIONS = ("open_page", "find_in_page")


def message_in(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """Anthropic's message itself, also of the event that begins a stream."""
    return dict(document.get("message") or document)


def response_in(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """OpenAI's response itself, also of an event."""
    return dict(document.get("response") or document)


def whole_response(recording: Recording) -> Mapping[str, Any]:
    """The reply, or the response in a stream's last event."""
    return response_in(documents_of(recording)[-1] if recording.is_event_stream else orjson.loads(recording.body))


def searches_of(recording: Recording) -> dict[str, int]:
    calls = [item for item in whole_response(recording)["output"] if item["type"] == "web_search_call"]
    searches = [call for call in calls if (call.get("action") or {}).get("type") not in FREE_ACTIONS]
    return {"web_searches": len(searches)} if searches else {}


def tier_of(recording: Recording) -> str:
    return str(whole_response(recording).get("service_tier", ""))


TRAFFICS = (
    Traffic(OPENAI_CHAT),
    Traffic(OPENAI_RESPONSES, tells_id=response_in, units_of=searches_of, tier_of=tier_of),
    Traffic(OPENAI_EMBEDDINGS),
    Traffic(ANTHROPIC_MESSAGES, {"LLM_PROVIDER": "anthropic"}, tells_id=message_in, own_members=("request_id",)),
)

each_traffic = pytest.mark.parametrize("traffic", TRAFFICS, ids=str)


def each(kind: str, recordings: Sequence[tuple[Traffic, Recording]]) -> pytest.MarkDecorator:
    """kind: said where there are none."""
    ids = [f"{traffic}-{recording.id}" for traffic, recording in recordings] or [f"no {kind}"]
    missing = pytest.param(None, None, marks=pytest.mark.skip(f"no {kind} recordings in {DIRECTORY}"))
    return pytest.mark.parametrize(("traffic", "recording"), recordings or [missing], ids=ids)


@pytest.fixture(scope="module")
def replays(
    _session_upstream: FakeUpstream,
    _gateway_pool: GatewayPool,
    gateway_environment: dict[str, str],
    django_db_blocker: DjangoDbBlocker,
) -> Mapping[str, Replay]:
    """All recordings, by id; each replayed once."""
    found: dict[str, Replay] = {}
    with django_db_blocker.unblock():
        for traffic in TRAFFICS:
            found |= traffic.replay(_session_upstream, _gateway_pool, gateway_environment)
    return found


@each_traffic
def test_there_are_recordings(traffic: Traffic) -> None:
    if not traffic.recordings:
        pytest.skip(f"no recordings of {traffic} in {DIRECTORY}: set LLM_TRAFFIC_DIR to the folder that has them")


@each("served", [(traffic, recording) for traffic in TRAFFICS for recording in traffic.served])
def test_the_recorded_reply_and_its_usage(
    replays: Mapping[str, Replay], traffic: Traffic, recording: Recording
) -> None:
    traffic.check_served(replays[recording.id], recording)


@each("refused", [(traffic, recording) for traffic in TRAFFICS for recording in traffic.refused])
def test_the_recorded_refusal_with_nothing_to_pay(
    replays: Mapping[str, Replay], traffic: Traffic, recording: Recording
) -> None:
    traffic.check_refused(replays[recording.id], recording)


@each_traffic
def test_estimates_are_held_against_recorded_usage(traffic: Traffic, capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        traffic.print_errors_of_estimates()
