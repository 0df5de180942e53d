"""The gateway's paths. `asgi.py` gives what begins like one of them to `GatewayHandler`."""

from django.urls import path, re_path

from llm.api.chat import ChatCompletionsView, NativeChatView
from llm.api.health import HealthView, MetricsView, ReadyView
from llm.api.models import ModelsView, ModelView

urlpatterns = [
    path("v1/chat/completions", ChatCompletionsView.as_view()),
    path("v1/models", ModelsView.as_view()),
    re_path(r"^v1/models/(?P<model>.+)$", ModelView.as_view()),
    path("api/chat", NativeChatView.as_view()),
    path("healthz", HealthView.as_view()),
    path("readyz", ReadyView.as_view()),
    path("metrics", MetricsView.as_view()),
]
