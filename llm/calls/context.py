"""Everything known about a call once it is on the books."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from llm.books.operations import OpenCall
from llm.dialects.base import ParsedRequest, WireFormat
from llm.keys import Caller
from llm.prices.catalog import Resolution, ServedPrice, Target
from llm.providers.base import BaseLLMProvider
from llm.types import ChatRequest, LimitState


@dataclass(frozen=True, slots=True)
class Bounds:
    """The limits of a call, in seconds and bytes.

    drain_events: of a stream whose caller has left. silence_s: after this long without a byte, a stream gets a comment.
    """

    first_byte_s: float
    idle_s: float
    total_s: float
    relay_bytes: int
    relay_stall_s: float
    drain_events: int
    silence_s: float


@dataclass(frozen=True, slots=True)
class CallContext:
    """Built once, when the call is opened, and constant while it lasts.

    chat: the translated request; None where the caller's own bytes go to the target.
    forwarded_headers: the caller's headers that an upstream of the same dialect gets too.
    reply_headers: what every reply to the caller carries.
    max_output_tokens: to what a limit has lowered the output maximum of a choice; None where none did.
    limits: what the limits that bind the call leave while it is open.
    keep_reply: keeps a whole reply, its body and headers, for who asks for it again; None where that is not wanted.
    """

    opened: OpenCall
    caller: Caller
    wire: WireFormat
    request: ParsedRequest
    forwarded_headers: Mapping[str, str]
    resolution: Resolution
    target: Target
    provider: BaseLLMProvider
    chat: ChatRequest | None
    bounds: Bounds
    reply_headers: Mapping[str, str]
    max_output_tokens: int | None = None
    limits: tuple[LimitState, ...] = ()
    keep_reply: Callable[[bytes, Mapping[str, str]], Awaitable[None]] | None = None

    @property
    def asks_for_usage(self) -> bool:
        """Whether we, rather than the caller, ask for a stream's usage."""
        return self.chat is None and self.request.is_stream and not self.request.wants_stream_usage

    @property
    def request_id(self) -> str:
        """In the form that callers see."""
        return f"req_{self.opened.request_id.hex}"

    def price_served(self, reported_model: str) -> ServedPrice:
        """The call's cost at the price of the model that the provider reports."""
        return self.resolution.price_served(self.target, reported_model)
