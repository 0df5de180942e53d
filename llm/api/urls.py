"""The gateway's paths. `asgi.py` routes paths that begin like these to `GatewayHandler`."""

from functools import cache

from django.urls import path, re_path
from django.urls.resolvers import RoutePattern

from llm.api.chat import ChatCompletionsView, NativeChatView
from llm.api.completions import TextCompletionsView
from llm.api.embeddings import EmbeddingsView
from llm.api.health import HealthView, MetricsView, ReadyView
from llm.api.messages import CountTokensView, MessagesView
from llm.api.models import ModelsView, ModelView
from llm.api.responses import (
    CompactResponsesView,
    CountInputTokensView,
    ResponseCancelView,
    ResponseInputItemsView,
    ResponsesView,
    ResponseView,
)

_RESPONSE = r"(?P<response_id>[^/]+)"

urlpatterns = [
    path("v1/chat/completions", ChatCompletionsView.as_view()),
    path("v1/responses", ResponsesView.as_view()),
    # Before those of one response, whose path they would match.
    path("v1/responses/input_tokens", CountInputTokensView.as_view()),
    path("v1/responses/compact", CompactResponsesView.as_view()),
    re_path(rf"^v1/responses/{_RESPONSE}$", ResponseView.as_view()),
    re_path(rf"^v1/responses/{_RESPONSE}/input_items$", ResponseInputItemsView.as_view()),
    re_path(rf"^v1/responses/{_RESPONSE}/cancel$", ResponseCancelView.as_view()),
    path("v1/completions", TextCompletionsView.as_view()),
    path("v1/embeddings", EmbeddingsView.as_view()),
    path("v1/messages", MessagesView.as_view()),
    path("v1/messages/count_tokens", CountTokensView.as_view()),
    path("v1/models", ModelsView.as_view()),
    re_path(r"^v1/models/(?P<model>.+)$", ModelView.as_view()),
    path("api/chat", NativeChatView.as_view()),
    path("healthz", HealthView.as_view()),
    path("readyz", ReadyView.as_view()),
    path("metrics", MetricsView.as_view()),
]


def not_served(path: str) -> str:
    """The message for an unknown path: which paths are served, and what may be wrong with the address."""
    return f"Nothing was found at {path[:200]}. This gateway serves {', '.join(_served())}.{_hint(path)}"


def _hint(path: str) -> str:
    if path.startswith("/v1/v1/"):
        return " An Anthropic SDK's base URL ends without /v1."
    return "" if path.startswith(("/v1/", "/api/")) or path == "/v1" else " An OpenAI SDK's base URL ends in /v1."


@cache
def _served() -> list[str]:
    """The paths that require a key, in order; a path with a pattern in it belongs to the one before it."""
    return [
        f"{method} /{pattern.pattern}"
        for pattern in urlpatterns
        if isinstance(pattern.pattern, RoutePattern) and pattern.callback.cls.requires_key  # type: ignore[attr-defined]
        for method in pattern.callback.cls.methods()  # type: ignore[attr-defined]
        if method != "HEAD"
    ]
