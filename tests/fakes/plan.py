"""From a reply and a script to what goes over the socket: pure, so that `delivery` only has to write."""

import gzip
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from tests.fakes.ledger import JSON, Counts
from tests.fakes.recordings import Recording
from tests.fakes.scripts import Script
from tests.fakes.wire import Asked, Reply, Wire

JSON_TYPE = "application/json"
SSE_TYPE = "text/event-stream; charset=utf-8"
GZIP_WBITS = 31
PADDING = b',"obfuscation":"%s"'
BOMB_BLOCK = b"0" * 1_000_000

REASONS = {
    400: "We could not parse the body of your request.",
    401: "Incorrect API key provided.",
    403: "This key may not do that.",
    404: "The model does not exist or you do not have access to it.",
    429: "Rate limit reached. Please slow down.",
    500: "The server had an error while it worked on your request.",
    503: "The engine is currently overloaded, please try again later.",
    529: "Overloaded",
}
STREAM_ERROR = "The server had an error while it worked on your request."


@dataclass(frozen=True, slots=True)
class Plan:
    """All that is to be sent, part by part: a stream's events, or a whole body (in two halves if it is to be cut).

    completion_after, usage_part: as in `Reply`, by part; a whole reply bills in full from the start.
    """

    status: int
    headers: Mapping[str, str]
    parts: Sequence[bytes]
    is_stream: bool = False
    counts: Counts = field(default_factory=Counts)
    usage: JSON | None = None
    usage_part: int | None = None
    completion_after: Sequence[int] = ()


def plan_refusal(wire: Wire, status: int, message: str, request_id: str) -> Plan:
    """An error of the server's own: a bad request, a missing key, an unknown model."""
    headers = {"content-type": JSON_TYPE} | wire.reply_headers(request_id)
    return Plan(status, headers, [wire.error_body(status, message, None, request_id)])


def plan_error(wire: Wire, asked: Asked, script: Script, request_id: str) -> Plan:
    """The script's status, with the provider's error body or the script's own."""
    message = script.error_message or REASONS.get(script.status, f"Error {script.status}.")
    if script.echoes_key:
        message += f" You sent: {asked.credential}."
    body = script.body
    if body is None:
        body = wire.error_body(script.status, message, script.error_code, request_id) if script.status >= 400 else b""
    return Plan(script.status, _headers(wire, script, request_id, JSON_TYPE), _whole_parts(body, script))


def plan_reply(wire: Wire, reply: Reply, script: Script, request_id: str) -> Plan:
    is_stream = bool(reply.events) and script.body is None
    headers = _headers(wire, script, request_id, SSE_TYPE if is_stream else JSON_TYPE)
    if script.gzip_bomb_bytes:
        bomb = gzip_bomb(script.gzip_bomb_bytes, b"data: " if is_stream else b"")
        return Plan(script.status, headers, _whole_parts(bomb, script), counts=reply.counts)
    if is_stream:
        return _plan_stream(wire, reply, script, headers)
    body = reply.body if script.body is None else script.body
    if script.padded_to_bytes is not None:
        [body] = _padded([body], script.padded_to_bytes)
    if script.truncates_json:
        body = body[: len(body) // 2]
    has_usage = script.body is None and not script.truncates_json and reply.usage is not None
    parts = _whole_parts(gzip.compress(body, mtime=0) if script.is_gzipped else body, script)
    usage_part = len(parts) - 1 if has_usage else None
    return Plan(script.status, headers, parts, counts=reply.counts, usage=reply.usage, usage_part=usage_part)


def plan_recording(recording: Recording, script: Script) -> Plan:
    """The recorded status, headers and body, to the byte; a stream event by event."""
    counts, usage = recording.counts(), recording.usage()
    if recording.is_event_stream:
        parts, usage_part = list(recording.events()), recording.usage_event()
    else:
        parts = _whole_parts(recording.body, script)
        usage_part = len(parts) - 1 if usage else None
    known_from = len(parts) if usage_part is None else usage_part
    return Plan(
        recording.status,
        recording.headers,
        parts,
        is_stream=recording.is_event_stream,
        counts=counts,
        usage=usage,
        usage_part=usage_part,
        completion_after=[0 if index < known_from else counts.completion_tokens for index in range(len(parts))],
    )


def _headers(wire: Wire, script: Script, request_id: str, usual_type: str) -> dict[str, str]:
    headers = wire.reply_headers(request_id)
    headers["content-type"] = script.content_type or usual_type
    if script.is_gzipped or script.gzip_bomb_bytes:
        headers["content-encoding"] = "gzip"
    if script.retry_after_s is not None:
        headers["retry-after"] = f"{script.retry_after_s:g}"
    if script.set_cookie is not None:
        headers["set-cookie"] = script.set_cookie
    if script.redirect_to is not None:
        headers["location"] = script.redirect_to
    return headers | dict(script.headers or {})


def _whole_parts(body: bytes, script: Script) -> list[bytes]:
    if script.cut_after_events is None and script.hang_after_events is None:
        return [body]
    half = len(body) // 2
    return [body[:half], body[half:]]


def _plan_stream(wire: Wire, reply: Reply, script: Script, headers: Mapping[str, str]) -> Plan:
    events, after, usage_part = list(reply.events), list(reply.completion_after), reply.usage_event
    if script.padded_to_bytes is not None:
        events = _padded(events, script.padded_to_bytes)
    if script.truncates_json:
        middle = len(events) // 2
        events[middle] = events[middle][: len(events[middle]) // 2] + b"\n\n"
    if script.omits_done:
        events.pop()
    if script.comments_after_events is not None:
        del events[script.comments_after_events :]
    if script.error_after_events is not None:
        events[script.error_after_events :] = [wire.error_event(script.error_message or STREAM_ERROR)]
        after[script.error_after_events :] = [after[max(script.error_after_events - 1, 0)]]
    if usage_part is not None and (usage_part >= len(events) or script.error_after_events == usage_part):
        usage_part = None
    if script.is_crlf:
        events = [event.replace(b"\n", b"\r\n") for event in events]
    if script.is_joined:
        events, after, usage_part = [b"".join(events)], after[len(events) - 1 :], None if usage_part is None else 0
    if script.is_gzipped:
        events = _gzipped(events)
    return Plan(
        script.status,
        headers,
        events,
        is_stream=True,
        counts=reply.counts,
        usage=reply.usage,
        usage_part=usage_part,
        completion_after=after,
    )


def _padded(parts: Sequence[bytes], total_bytes: int) -> list[bytes]:
    """As long in all as is asked, each part that is JSON by as much: real providers hide lengths in this way."""
    count = sum(b"}" in part for part in parts)
    each, rest = divmod(total_bytes - sum(map(len, parts)) - len(PADDING % b"") * count, count)
    if each < 0:
        raise ValueError(f"the reply is longer than {total_bytes} bytes")
    padded = []
    for part in parts:
        head, brace, tail = part.rpartition(b"}")
        padded.append(head + PADDING % (b"x" * (each + rest)) + brace + tail if brace else part)
        rest = 0 if brace else rest
    return padded


def _gzipped(events: Sequence[bytes]) -> list[bytes]:
    """One gzip stream, flushed after each event so that each can be read when it comes."""
    packer = zlib.compressobj(wbits=GZIP_WBITS)
    packed = [packer.compress(event) + packer.flush(zlib.Z_SYNC_FLUSH) for event in events]
    packed[-1] += packer.flush(zlib.Z_FINISH)
    return packed


@lru_cache(maxsize=4)
def gzip_bomb(size_bytes: int, prefix: bytes) -> bytes:
    """Well-formed JSON of about that size, packed to a thousandth of it."""
    packer = zlib.compressobj(wbits=GZIP_WBITS)
    blocks, rest = divmod(size_bytes, len(BOMB_BLOCK))
    packed = [packer.compress(prefix + b'{"id":"')]
    packed += [packer.compress(BOMB_BLOCK) for _ in range(blocks)]
    packed += [packer.compress(BOMB_BLOCK[:rest] + b'"}\n\n'), packer.flush()]
    return b"".join(packed)
