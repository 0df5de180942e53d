"""A sample of what `make malformed` sends: no 500, errors in the caller's dialect, no row without a call."""

from __future__ import annotations

from collections.abc import Callable

import orjson
import pytest

from tests.fakes import FakeUpstream
from tests.gateway_process import Gateway
from tests.malformed import campaign
from tests.malformed.bodies import COMPLETIONS, EMBEDDINGS, STREAMED, VALID_BODIES
from tests.malformed.mutations import MalformedRequest, malform

pytestmark = [pytest.mark.e2e, pytest.mark.wire]

SEED = 7
OF_EACH = range(25)
NOT_ANTHROPICS = (COMPLETIONS, EMBEDDINGS)
TRANSLATED = tuple(path for path in VALID_BODIES if path not in NOT_ANTHROPICS)


def assert_valid_bodies_are_served(gateway: Gateway, api_key: str, paths: tuple[str, ...]) -> None:
    """Else most changes of them would be refused for what they already have."""
    for path in paths:
        for extra in ({}, STREAMED.get(path, {})):
            body = orjson.dumps({**VALID_BODIES[path], **extra})
            reply = campaign.send(gateway.url, api_key, MalformedRequest("valid", path, "", (), body))
            assert reply.status == 200, (path, reply.body)


def assert_held(gateway: Gateway, api_key: str, upstream: FakeUpstream, paths: tuple[str, ...]) -> None:
    assert_valid_bodies_are_served(gateway, api_key, paths)
    verdict = campaign.run(gateway.url, api_key, paths=paths, seed=SEED, numbers=OF_EACH)
    assert verdict.problems == []
    assert {200, 400} <= set(verdict.statuses)
    assert verdict.statuses.total() == len(paths) * len(OF_EACH)
    assert list(campaign.find_problems_in_books(upstream)) == []


def test_malformed_requests_are_refused_in_their_dialect(
    gateway: Gateway, api_key: str, upstream: FakeUpstream
) -> None:
    assert_held(gateway, api_key, upstream, tuple(VALID_BODIES))


@pytest.mark.xdist_group("before_anthropic")
def test_malformed_requests_are_refused_in_their_dialect_behind_anthropic(
    start_gateway: Callable[..., Gateway], api_key: str, upstream: FakeUpstream
) -> None:
    assert_held(start_gateway(LLM_PROVIDER="anthropic"), api_key, upstream, TRANSLATED)


def test_the_same_seed_makes_the_same_requests() -> None:
    numbers = [(path, number) for path in VALID_BODIES for number in range(20)]
    made, again = ([malform(path, seed=3, number=number) for path, number in numbers] for _ in range(2))
    assert made == again
    assert len({(each.path, each.query, each.headers, each.body) for each in made}) > len(numbers) * 0.9


@pytest.mark.parametrize(
    ("path", "reply"),
    [
        ("/v1/messages", campaign.Reply(500, "application/json", b'{"error":{"message":"x","code":"y"}}')),
        ("/v1/chat/completions", campaign.Reply(400, "text/html", b"<h1>Bad request</h1>")),
        ("/v1/chat/completions", campaign.Reply(200, "text/event-stream", b"data: half\n\n")),
    ],
)
def test_a_wrong_reply_is_a_problem(path: str, reply: campaign.Reply) -> None:
    assert list(campaign.find_problems(MalformedRequest("", path, "", (), b""), reply))
