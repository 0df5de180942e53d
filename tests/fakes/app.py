"""The fake upstream's aiohttp application: providers' routes, and its own under `/_`."""

import asyncio
import itertools
import secrets
import threading
from collections import deque
from typing import Any

import orjson
from aiohttp import web

from tests.fakes import (
    anthropic_wire,
    compaction_wire,
    completions_wire,
    count_tokens_wire,
    embeddings_wire,
    input_tokens_wire,
    openai_wire,
    responses_wire,
)
from tests.fakes.content import compose
from tests.fakes.delivery import Delivery
from tests.fakes.kept_responses import KeptResponses
from tests.fakes.ledger import JSON, Entry, Ledger, OpenCall, sum_up
from tests.fakes.plan import Plan, plan_error, plan_recording, plan_refusal, plan_reply
from tests.fakes.recordings import Recording
from tests.fakes.scripts import PRESETS, Script, UnknownScriptError, script_for_model
from tests.fakes.wire import Asked, BadRequestError, Wire

MAX_BODY_BYTES = 256 * 1024 * 1024
RECORDING_MODEL_PREFIX = "recording-"
UNKNOWN_DIALECT = "unknown"
MAX_OUTPUT_TOKENS = 64_000
"""Of each model, as Anthropic's description of it says."""
_MISSHAPEN = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What a wire raises for a body that a provider's schema would have refused."""

WIRES: dict[str, Wire] = {
    "/v1/chat/completions": openai_wire,
    "/v1/responses": responses_wire,
    "/v1/responses/input_tokens": input_tokens_wire,
    "/v1/responses/compact": compaction_wire,
    "/v1/completions": completions_wire,
    "/v1/embeddings": embeddings_wire,
    "/v1/messages": anthropic_wire,
    "/v1/messages/count_tokens": count_tokens_wire,
}

_CONTINUING = (responses_wire, input_tokens_wire, compaction_wire)
"""They take the id of a response that is kept."""


class FakeApp:
    """What the server knows: its ledger, and which script comes next. The setters may be called from any thread."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self._lock = threading.Lock()
        self._queue: deque[Script] = deque()
        self._default = Script()
        self._recordings: dict[str, Recording] = {}
        self._kept = KeptResponses()
        # Never reset: a reply's id must not come back in the same run.
        self._run_id, self._numbers = secrets.token_hex(6), itertools.count(1)

    def enqueue(self, *scripts: Script) -> None:
        with self._lock:
            self._queue.extend(scripts)

    def set_default(self, script: Script) -> None:
        with self._lock:
            self._default = script

    def publish(self, *recordings: Recording) -> None:
        with self._lock:
            self._recordings |= {recording.id: recording for recording in recordings}

    def reset(self) -> None:
        with self._lock:
            self._queue.clear()
            self._default = Script()
            self._recordings.clear()
        self.ledger.clear()

    def build(self, stop: asyncio.Event) -> web.Application:
        """The application; once `stop` is set, replies that hang let go of their connections."""
        self._stop = stop
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.router.add_get("/v1/models", self._show_models)
        app.router.add_get("/v1/models/{model:.+}", self._show_model)
        app.router.add_get("/_ledger", self._show_ledger)
        app.router.add_get("/_totals", self._show_totals)
        app.router.add_post("/_reset", self._reset)
        app.router.add_post("/_enqueue", self._enqueue)
        app.router.add_post("/_default", self._set_default)
        for path in WIRES:
            app.router.add_post(path, self._serve)
        app.router.add_route("*", "/v1/responses/{id}{rest:.*}", self._serve_kept)
        app.router.add_route("*", "/{path:.*}", self._serve)
        return app

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        wire = WIRES.get(request.path) if request.method == "POST" else None
        call = self.ledger.begin(dialect=wire.DIALECT if wire else UNKNOWN_DIALECT, path=request.path)
        try:
            return await self._answer(request, wire, raw, call)
        except asyncio.CancelledError:
            call.has_peer_hung_up = request.transport is None
            raise
        except ConnectionError:
            call.has_peer_hung_up = True
            return web.Response()
        finally:
            self.ledger.finish(call)

    async def _serve_kept(self, request: web.Request) -> web.StreamResponse:
        """What is asked about a response that was made here before; each request is an entry of its own."""
        call = self.ledger.begin(dialect=UNKNOWN_DIALECT, path=request.path_qs)
        try:
            call.headers = _headers_of(request)
            script = self._take_queued()
            if script is not None and script.body is not None:
                call.status, call.finished = script.status, True
                return web.Response(body=script.body, status=script.status, content_type=script.content_type)
            status, document = self._kept.answer(request.method, request.match_info["id"], request.match_info["rest"])
            call.status, call.finished = status, True
            return _json(document, status=status)
        finally:
            self.ledger.finish(call)

    def _take_queued(self) -> Script | None:
        with self._lock:
            return self._queue.popleft() if self._queue else None

    async def _answer(self, request: web.Request, wire: Wire | None, raw: bytes, call: OpenCall) -> web.StreamResponse:
        asked = Asked(request.path, _headers_of(request), raw, _parsed(raw))
        call.headers, call.raw, call.body = asked.headers, asked.raw, asked.body
        call.model, call.is_stream = asked.model, asked.is_stream
        call.marker, call.credential = asked.marker, asked.credential
        call_id = f"{self._run_id}{next(self._numbers):010d}"
        plan, script, call.response_id = self._plan(wire, asked, call_id)
        delivery = Delivery(request, plan, script, call=call, ledger=self.ledger, stop=self._stop)
        return await delivery.run()

    def _plan(self, wire: Wire | None, asked: Asked, call_id: str) -> tuple[Plan, Script, str]:
        """The plan, the script it follows, and the reply's id ("" when it has none)."""
        request_id = f"req_{call_id}"
        if wire is None:
            return plan_refusal(openai_wire, 404, f"Unknown request URL: {asked.path}.", request_id), Script(), ""
        if asked.credential is None:
            return plan_refusal(wire, 401, "You didn't provide an API key.", request_id), Script(), ""
        try:
            script = self._next_script(asked.model)
            return self._plan_script(wire, asked, script, call_id)
        except UnknownScriptError as error:
            return plan_refusal(wire, 404, str(error), request_id), Script(), ""
        except BadRequestError as error:
            return plan_refusal(wire, 400, str(error), request_id), Script(), ""
        except _MISSHAPEN as error:
            return plan_refusal(wire, 400, f"Malformed request: {error!r}", request_id), Script(), ""

    def _next_script(self, model: str) -> Script:
        if (script := script_for_model(model)) is not None:
            return script
        with self._lock:
            if model.startswith(RECORDING_MODEL_PREFIX):
                return self._script_for_recording(model.removeprefix(RECORDING_MODEL_PREFIX))
            return self._queue.popleft() if self._queue else self._default

    def _script_for_recording(self, recording_id: str) -> Script:
        if recording_id not in self._recordings:
            raise UnknownScriptError(f"no such recording: {recording_id}")
        return Script(recording=self._recordings[recording_id])

    def _plan_script(self, wire: Wire, asked: Asked, script: Script, call_id: str) -> tuple[Plan, Script, str]:
        request_id = f"req_{call_id}"
        if script.recording is not None:
            return plan_recording(script.recording, script), script, ""
        if script.status >= 300:
            return plan_error(wire, asked, script, request_id), script, ""
        if not asked.model:
            raise BadRequestError("you must provide a model parameter")
        prompt = wire.read_prompt(asked.body)
        content = compose(prompt, script, credential=asked.credential)
        if wire in _CONTINUING:
            self._kept.require(asked.body.get("previous_response_id"))
        reply = wire.build_reply(asked, prompt, content, script, call_id)
        if wire is responses_wire:
            self._kept.keep(reply.response_id, asked.body)
        return plan_reply(wire, reply, script, request_id), script, reply.response_id

    async def _show_models(self, request: web.Request) -> web.Response:
        models = [
            {"id": name if name.startswith("bench-") else f"fake-{name}", "object": "model", "owned_by": "fake"}
            for name in PRESETS
        ]
        return _json({"object": "list", "data": [model | {"created": 1_700_000_000} for model in models]})

    async def _show_model(self, request: web.Request) -> web.Response:
        """As Anthropic describes one. It stands in no ledger: nothing is generated."""
        model = request.match_info["model"]
        if model.startswith("undescribed"):
            return _json(
                {"type": "error", "error": {"type": "not_found_error", "message": f"model: {model}"}}, status=404
            )
        described = {"id": model, "type": "model", "display_name": model, "created_at": "2026-01-01T00:00:00Z"}
        return _json({**described, "max_input_tokens": 200_000, "max_tokens": MAX_OUTPUT_TOKENS})

    async def _show_ledger(self, request: web.Request) -> web.Response:
        entries = await self._settled_entries()
        totals = sum_up(entries, open_calls=self.ledger.open_calls)
        return _json({"entries": [entry.to_json() for entry in entries], "totals": totals.to_json()})

    async def _show_totals(self, request: web.Request) -> web.Response:
        entries = await self._settled_entries()
        return _json(sum_up(entries, open_calls=self.ledger.open_calls).to_json())

    async def _settled_entries(self) -> tuple[Entry, ...]:
        """The ledger's entries, waited for in a thread: the calls they wait for run on this loop."""
        return await asyncio.to_thread(self.ledger.entries)

    async def _reset(self, request: web.Request) -> web.Response:
        self.reset()
        return _json({})

    async def _enqueue(self, request: web.Request) -> web.Response:
        """One script, as an object of knobs, or a list of them."""
        asked = orjson.loads(await request.read())
        try:
            scripts = [Script.from_json(knobs) for knobs in (asked if isinstance(asked, list) else [asked])]
        except UnknownScriptError as error:
            return _json({"error": str(error)}, status=400)
        self.enqueue(*scripts)
        return _json({"queued": len(scripts)})

    async def _set_default(self, request: web.Request) -> web.Response:
        try:
            self.set_default(Script.from_json(orjson.loads(await request.read())))
        except UnknownScriptError as error:
            return _json({"error": str(error)}, status=400)
        return _json({})


def _headers_of(request: web.Request) -> dict[str, str]:
    return {name.lower(): value for name, value in request.headers.items()}


def _parsed(raw: bytes) -> JSON:
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return {}
    return body if isinstance(body, dict) else {}


def _json(document: Any, *, status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(document), status=status, content_type="application/json")
