"""The list of models as Anthropic's official SDK reads it."""

from __future__ import annotations

from datetime import UTC

import anthropic
import pytest

from llm.models import ApiKey, Price
from tests.e2e.callers import Application
from tests.e2e.test_unpriced import make_route, set_price
from tests.fakes.app import MAX_OUTPUT_TOKENS

pytestmark = [pytest.mark.e2e, pytest.mark.wire]

VERSION = {"anthropic-version": "2023-06-01"}
NAMES = [f"claude-{letter}" for letter in "abcde"]


@pytest.fixture
def models(claude: anthropic.Anthropic) -> list[str]:
    for name in NAMES:
        set_price(name, provider="anthropic", free=True)
    return NAMES


def test_the_sdk_goes_through_the_pages(claude: anthropic.Anthropic, models: list[str]) -> None:
    assert [model.id for model in claude.models.list()] == models
    first = claude.models.list(limit=2)
    assert ([model.id for model in first.data], first.has_more, first.first_id, first.last_id) == (
        models[:2],
        True,
        models[0],
        models[1],
    )
    assert [model.id for model in first] == models
    last = claude.models.list(limit=3, after_id=models[1])
    assert ([model.id for model in last.data], last.has_more) == (models[2:], False)
    before = claude.models.list(limit=2, before_id=models[3])
    assert ([model.id for model in before.data], before.has_more) == (models[1:3], True)
    start = claude.models.list(limit=2, before_id=models[2])
    assert ([model.id for model in start.data], start.has_more) == (models[:2], False)


def test_one_model_and_a_name_with_a_slash(claude: anthropic.Anthropic, models: list[str]) -> None:
    make_route("anthropic/claude-a", ("anthropic", "claude-a"))
    model = claude.models.retrieve("anthropic/claude-a")
    assert (model.id, model.type, model.display_name, model.lifecycle) == (
        "anthropic/claude-a",
        "model",
        "anthropic/claude-a",
        "active",
    )
    assert model.created_at.tzinfo == UTC
    with pytest.raises(anthropic.NotFoundError) as refusal:
        claude.models.retrieve("claude-unheard-of")
    assert refusal.value.type == "not_found_error"


def test_what_is_known_of_a_models_size_is_told(claude: anthropic.Anthropic) -> None:
    sizes = {"context_window": 200_000, "is_free": True, "source": "staff", "provider": "anthropic"}
    Price.objects.create(model="claude-a", **sizes)
    Price.objects.create(model="undescribed-a", **sizes)
    known, unknown = claude.models.list()
    assert (known.max_input_tokens, known.max_tokens) == (200_000, MAX_OUTPUT_TOKENS)
    assert (unknown.max_input_tokens, unknown.max_tokens) == (200_000, None)
    assert claude.models.retrieve("claude-a") == known


def test_a_key_for_some_models_sees_those_alone(claude: anthropic.Anthropic, models: list[str]) -> None:
    ApiKey.objects.update(allowed_models=["claude-b"])
    assert [model.id for model in claude.models.list()] == ["claude-b"]


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=1001", "limit=x", "limit=", "after_id=no", "before_id=no", "after_id=a&before_id=b"]
)
def test_odd_pages_are_refused_in_anthropics_words(application: Application, query: str) -> None:
    reply = application.send("GET", f"/v1/models?{query}", headers=VERSION)
    assert (reply.status_code, reply.json()["error"]["type"]) == (400, "invalid_request_error")


def test_an_empty_list_has_no_first_and_no_last(application: Application) -> None:
    reply = application.send("GET", "/v1/models", headers=VERSION)
    assert reply.json() == {"data": [], "has_more": False, "first_id": None, "last_id": None}
    assert reply.headers["request-id"] == reply.headers["x-request-id"]
    assert "openai-processing-ms" not in reply.headers


def test_without_the_header_the_list_is_openais(application: Application) -> None:
    reply = application.send("GET", "/v1/models?limit=0")
    assert reply.json() == {"object": "list", "data": []}
    assert "request-id" not in reply.headers


def test_a_wrong_key_is_refused_in_the_words_of_who_asks(application: Application) -> None:
    wrong = application.using("llm_wrong")
    assert wrong.send("GET", "/v1/models", headers=VERSION).json()["error"]["type"] == "authentication_error"
    assert wrong.send("GET", "/v1/models").json()["error"]["code"] == "invalid_api_key"
