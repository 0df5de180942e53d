"""What the readers of pass-through streams share, whatever the dialect.

Blocks pass unchanged. Only those that mention usage, money, an error or the end are parsed. The upstream's prices are
removed from every event. The event with the usage and the last one are held back until the call is on the books; if the
account shows its cost, it is added to the usage.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

from llm.dialects.error_shapes import failure_name, says_error
from llm.dialects.json_size import is_readable_event
from llm.dialects.json_text import with_usage_cost
from llm.dialects.money_fields import event_without_money, read_upstream_cost
from llm.dialects.reply_fields import loaded, text_in
from llm.dialects.sse import EventSplitter, read_event, split_events, too_large, with_data
from llm.dialects.transcript import Transcript
from llm.dialects.usage_figures import merged_service, read_service, reports_tool_units
from llm.types import Reading, Service, TokenCounts, UpstreamCost


class EventReader(ABC):
    """A `StreamReader` without its dialect's specifics."""

    LAST_EVENT: bytes
    """Sent if the upstream's own last event was unfinished."""

    def __init__(self, text_of_event: Callable[[bytes], str]) -> None:
        """text_of_event: the text that the model wrote, from the data of one event."""
        self._splitter = EventSplitter()
        self._transcript = Transcript(text_of_event)
        self._has_data = False
        self._last_event = b""
        self._failure: str | None = None
        self._error: Mapping[str, Any] | None = None
        self._model = self._response_id = ""
        self._service = Service()
        self._usage: Any = None
        self._upstream_cost: UpstreamCost | None = None
        self._is_final = False
        self._usage_event = b""
        self._behind_usage: list[bytes] = []

    # --- The interface of a `StreamReader` ----------------------------------------------------------------------------

    @property
    def has_data(self) -> bool:
        return self._has_data

    @property
    def is_complete(self) -> bool:
        # Some servers close the connection without the blank line that ends their last event.
        return bool(self._last_event) or (self._has_data and self._is_end(self._splitter.pending))

    @property
    def failure(self) -> str | None:
        return self._failure

    @property
    def error(self) -> Mapping[str, Any] | None:
        if self._error is None and not self._has_data:
            # A whole answer although a stream was requested, or an unfinished event.
            pending = self._splitter.pending
            document = read_event(pending).data or pending
            return loaded(document) if is_readable_event(document) else None
        return self._error

    @property
    def dropped_characters(self) -> int:
        return self._transcript.dropped_characters

    @property
    def held_bytes(self) -> int:
        return self._splitter.held_bytes

    def feed(self, data: bytes) -> bytes:
        block = self._splitter.feed(data)
        if not block or self._is_over:
            return b""
        self._transcript.add(block)
        block = self._unasked_removed(block)
        if self._is_plain(block):
            return block
        return b"".join([self._pass(event) for event in split_events(block)])

    def end(self) -> bytes:
        """An event counts once a blank line has ended it; the dialect's last one may count earlier (`is_complete`)."""
        return b""

    def finish(self, *, cost: str | None = None) -> bytes:
        if self._failure is not None:
            return b""
        usage_event = with_usage_cost(self._usage_event, cost) if cost is not None else self._usage_event
        last_event = self._last_event or (self.LAST_EVENT if self.is_complete else b"")
        return usage_event + b"".join(self._behind_usage) + last_event

    def reading(self) -> Reading:
        counts, absurd_usage = self._read_usage()
        return Reading(
            counts=counts,
            absurd_usage=absurd_usage,
            model=self._model,
            response_id=self._response_id,
            service=self._service,
            is_final=self._is_final,
            is_input_final=self._is_input_final(),
            upstream_cost=self._upstream_cost,
            reports_tools=self._reports_tools(),
        )

    def output_text(self) -> str:
        return self._transcript.text()

    # --- Implemented by each dialect ----------------------------------------------------------------------------------

    @abstractmethod
    def _is_plain(self, block: bytes) -> bool:
        """Whether it contains nothing for us. raw: one event, or several."""

    @abstractmethod
    def _is_end(self, raw: bytes) -> bool:
        """Whether this event is the dialect's last."""

    @abstractmethod
    def _pass_document(self, raw: bytes, document: Mapping[str, Any]) -> bytes:
        """What goes to the caller now of an event with JSON. raw: the event without the upstream's prices."""

    @abstractmethod
    def _read_usage(self) -> tuple[TokenCounts | None, Mapping[str, Any] | None]:
        """(counts, absurd) of the usage reported so far."""

    def _unasked_removed(self, block: bytes) -> bytes:
        """Without additions that only our own request has caused."""
        return block

    def _failure_in(self, document: Mapping[str, Any]) -> str | None:
        """The type of the error if the event is one, cleaned; otherwise None."""
        return _failure_of(document, is_first=not self._model)

    def _is_input_final(self) -> bool:
        """Whether the reported input usage is final, although the reply isn't."""
        return False

    def _reports_tools(self) -> bool:
        return reports_tool_units(self._usage)

    # --- One event ------------------------------------------------------------------------------------------------

    @property
    def _is_over(self) -> bool:
        return bool(self._last_event) or self._failure is not None

    def _pass(self, raw: bytes) -> bytes:
        """What goes to the caller now of one event."""
        if self._is_over:
            return b""
        if self._is_plain(raw):
            return raw
        data = read_event(raw).data
        if data is None:
            return self._pass_without_data(raw)
        self._has_data = True
        if self._is_end(raw):
            self._last_event = event_without_money(raw)
            return b""
        if not is_readable_event(data):
            # It may be an error in the upstream's own words, so it can't be passed on unread.
            raise too_large()
        if b"\n" in data:
            # Searches in an event's text look at a single line.
            raw = with_data(raw, data)
        raw = event_without_money(raw)
        document = loaded(data)
        if document is None:
            return self._released() + raw
        if failure := self._failure_in(document):
            self._fail(failure, document)
            return b""
        self._identify(document)
        return self._pass_document(raw, document)

    def _pass_without_data(self, raw: bytes) -> bytes:
        """Comments keep a connection alive. A field that SSE doesn't define is ignored by clients, and may be an error
        in the upstream's own words (llama.cpp once sent `error: {...}`).
        """
        if raw.lstrip().startswith(b":"):
            return event_without_money(raw)
        if raw.startswith(b"error:"):
            error = {"error": loaded(raw[len(b"error:") :]) or "error"}
            self._fail(_failure_of(error, is_first=False) or "error", error)
        elif not self._has_data and (document := loaded(raw)) and says_error(document):
            self._fail("error", document)
        return b""

    def _fail(self, failure: str, document: Mapping[str, Any]) -> None:
        self._failure, self._error = failure, document
        if isinstance(document.get("usage"), dict):
            self._usage, self._is_final = document["usage"], True
        self._identify(document)

    def _hold(self, usage_event: bytes) -> bytes:
        """Keep the event with the usage; a previously held one goes to the caller."""
        released = self._released()
        self._usage_event = usage_event
        return released

    def _hold_behind(self, raw: bytes) -> bytes:
        """Events between the usage and the end keep their place."""
        self._behind_usage.append(raw)
        return b""

    def _released(self) -> bytes:
        """Held back as the last usage, but it wasn't the last."""
        if not self._usage_event:
            return b""
        held = self._usage_event + b"".join(self._behind_usage)
        self._usage_event = b""
        self._behind_usage = []
        return held

    def _identify(self, document: Mapping[str, Any]) -> None:
        """document: an object with the answering model and its service."""
        self._model = text_in(document, "model") or self._model
        self._response_id = text_in(document, "id") or self._response_id
        self._service = merged_service(self._service, read_service(document, document.get("usage")))
        if (cost := read_upstream_cost(document)) is not None:
            self._upstream_cost = cost


def _failure_of(document: Mapping[str, Any], *, is_first: bool) -> str | None:
    """is_first: text alone counts as an error only if no answer has begun."""
    error = document if document.get("object") == "error" else document.get("error")
    if not error and ((is_first and says_error(document)) or document.get("type") == "error"):
        error = document
    if not error:
        return None
    fields = error if isinstance(error, dict) else {}
    # An event's own type may only say that it is an error.
    kinds = [kind for kind in (fields.get("type"), fields.get("code")) if kind and kind != "error"]
    return failure_name(kinds[0] if kinds else "error")
