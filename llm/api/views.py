"""The base of every endpoint of the gateway: an asynchronous DRF view that speaks a dialect."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any, ClassVar

from django.http import HttpResponse, HttpResponseBase, StreamingHttpResponse
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.renderers import BaseRenderer, JSONRenderer
from rest_framework.request import Request
from rest_framework.views import APIView

from llm import metrics
from llm.api.auth import Headers, authenticate
from llm.calls.relay import Relay, Reply
from llm.calls.runtime import runtime
from llm.dialects.anthropic_messages.wire import ANTHROPIC_MESSAGES
from llm.dialects.base import WireFormat
from llm.dialects.native import NATIVE
from llm.dialects.openai_chat.wire import OPENAI_CHAT
from llm.errors import GatewayError, MethodNotAllowed, RequestError, UpstreamError
from llm.ids import uuid7
from llm.keys import Caller

# The second is requested by Anthropic's SDK if its base URL ends in /v1.
_ANTHROPICS_PATHS = ("/v1/messages", "/v1/v1/messages")


class OneRenderer(BaseContentNegotiation):
    """SDKs send `Accept: application/json` for streams too, so the header is ignored."""

    def select_parser(self, request: Request, parsers: Any) -> Any:
        return parsers[0]

    def select_renderer(
        self, request: Request, renderers: Any, format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        return renderers[0], renderers[0].media_type


class AsyncAPIView(APIView):
    """wire: the dialect of the endpoint. opens_calls: the books check the key again, so a cached one suffices."""

    wire: ClassVar[WireFormat] = OPENAI_CHAT
    requires_key: ClassVar[bool] = True
    opens_calls: ClassVar[bool] = False

    caller: Caller
    """Set where a key is required."""

    renderer_classes = (JSONRenderer,)
    content_negotiation_class = OneRenderer
    authentication_classes = ()
    permission_classes = ()
    throttle_classes = ()

    @classmethod
    def wire_for(cls, headers: Headers) -> WireFormat:
        """The dialect of one request. headers: names in lower case."""
        return cls.wire

    @classmethod
    def methods(cls) -> tuple[str, ...]:
        """The HTTP methods that the view serves; Django's views add HEAD to an instance that has GET."""
        served = [name for name in cls.http_method_names if name != "options" and hasattr(cls, name)]
        return tuple(name.upper() for name in (*served, *(["head"] if "get" in served else [])))

    async def dispatch(self, request: Any, *args: Any, **kwargs: Any) -> HttpResponseBase:  # type: ignore[override]
        self.args, self.kwargs = args, kwargs
        self.request = self.initialize_request(request, *args, **kwargs)
        self.headers: dict[str, str] = {}
        try:
            await self._identify(request)
            if request.method not in self.methods():
                raise MethodNotAllowed.of(request.method, allowed=self.methods())
            response: HttpResponseBase = await getattr(self, request.method.lower())(self.request, *args, **kwargs)
        except GatewayError as error:
            request_id = f"req_{uuid7().hex}"
            count_refusal(error, getattr(self, "caller", None), request_id=request_id)
            return error_response(error, self.wire_for(_headers_of(request)), request_id=request_id)
        if not response.has_header("x-request-id"):
            _name_request(response, self.wire_for(_headers_of(request)), f"req_{uuid7().hex}")
        return response

    async def _identify(self, request: Any) -> None:
        """The gateway's handler has done it already; Django's own hasn't."""
        caller: Caller | None = getattr(request, "caller", None)
        if caller is None and self.requires_key:
            caller = await authenticate(runtime(), _headers_of(request), must_be_fresh=not self.opens_calls)
        if caller is not None:
            self.caller = caller
            self.request.user = self.request.auth = caller  # type: ignore[assignment]  # what DRF's permissions expect


class ReplyResponse(HttpResponseBase):
    """A response with headers set by the gateway: Django would check and convert each of them twice.

    reply_headers: names in lower case; ASCII without line breaks.
    """

    reply_headers: Mapping[str, str]

    def items(self) -> Iterable[tuple[str, str]]:
        return chain(super().items(), self.reply_headers.items())


class WholeResponse(ReplyResponse, HttpResponse):
    """A complete reply."""

    def __init__(self, reply: Reply, body: bytes) -> None:
        super().__init__(body, content_type=reply.content_type)
        self.reply_headers = reply.headers


class RelayResponse(ReplyResponse, StreamingHttpResponse):
    """A streamed reply. Its relay is told when the caller leaves, even before the first byte was requested."""

    def __init__(self, reply: Reply, relay: Relay) -> None:
        super().__init__(relay, content_type=reply.content_type)
        self.reply_headers = reply.headers
        self.relay = relay

    def close(self) -> None:
        self.relay.leave()
        super().close()


def build_response(reply: Reply, wire: WireFormat, *, request_id: str) -> HttpResponseBase:
    """Converts a request task's reply to a Django response; a streamed one tells its relay when the caller leaves."""
    body = reply.body
    response = RelayResponse(reply, body) if isinstance(body, Relay) else WholeResponse(reply, body)
    _name_request(response, wire, request_id)
    return response


def error_response(error: GatewayError, wire: WireFormat, *, request_id: str) -> HttpResponse:
    rendered = wire.render_error(error, request_id=request_id)
    response = HttpResponse(rendered.body, status=rendered.status, content_type=rendered.content_type)
    for name, value in rendered.headers.items():
        response[name] = value
    if isinstance(error, MethodNotAllowed):
        response["allow"] = ", ".join(error.allowed)
    _name_request(response, wire, request_id)
    return response


def count_refusal(error: GatewayError, caller: Caller | None, *, request_id: str) -> None:
    """For a request that never became a task, which counts its own."""
    if isinstance(error, RequestError):
        metrics.count_refused(error.code)
    if not isinstance(error, UpstreamError):
        runtime().refusals.note(error, caller, request_id=request_id)


def wire_for_path(path: str) -> WireFormat:
    """The dialect in which a path without a view is answered."""
    if path.startswith(_ANTHROPICS_PATHS):
        return ANTHROPIC_MESSAGES
    return NATIVE if path.startswith("/api/") else OPENAI_CHAT


def _name_request(response: HttpResponseBase, wire: WireFormat, request_id: str) -> None:
    response["x-request-id"] = response[wire.request_id_header] = request_id


def _headers_of(request: Any) -> Headers:
    return [(name.lower().encode(), value.encode("latin-1")) for name, value in request.headers.items()]
