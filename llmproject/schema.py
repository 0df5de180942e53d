"""The API description, which is public: made once per process, without the database."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from django.http import HttpResponse
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.plumbing import get_lib_doc_excludes
from drf_spectacular.views import SpectacularAPIView
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from billing.api.base import ManagementView
from billing.api.errors import handle_exception
from billing.api.fields import RequestSerializer, ViewedSerializer
from llm.api.responses import KeptView


def classes_without_description() -> list[type]:
    """Docstrings of these, and of their bases, are for developers: drf-spectacular must not publish them."""
    library: list[type] = get_lib_doc_excludes()  # type: ignore[no-untyped-call]
    return [*library, ManagementView, ViewedSerializer, RequestSerializer, KeptView]


class SchemaView(SpectacularAPIView):
    """The library's view, except that its parameters only choose a format, and refusals are JSON."""

    authentication_classes = ()
    permission_classes = ()
    http_method_names = ["get", "head"]

    def _get_schema_response(self, request: Request) -> HttpResponse:
        renderer = request.accepted_renderer
        response = HttpResponse(
            _rendered(str(renderer.media_type)), content_type=f"{renderer.media_type}; charset=utf-8"
        )
        response["Content-Disposition"] = f'inline; filename="schema.{renderer.format}"'
        return response

    def get_exception_handler(self) -> Callable[[Exception, dict[str, Any]], Response | None]:
        return handle_exception

    def finalize_response(self, request: Any, response: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(response, Response):
            request.accepted_renderer, request.accepted_media_type = JSONRenderer(), JSONRenderer.media_type
        return super().finalize_response(request, response, *args, **kwargs)


@cache
def _rendered(media_type: str) -> bytes:
    """Cached: it takes a second, and strangers could request it without end."""
    renderer = next(each for each in SchemaView.renderer_classes if each.media_type == media_type)
    schema = SchemaGenerator().get_schema(request=None, public=True)  # type: ignore[no-untyped-call]
    rendered = renderer().render(schema, renderer_context={})
    return rendered if isinstance(rendered, bytes) else rendered.encode()
