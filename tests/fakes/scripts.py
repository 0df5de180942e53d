"""How the fake upstream is to behave: one frozen dataclass of orthogonal knobs, and names for the usual settings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, Self

from tests.fakes.recordings import Recording


class UnknownScriptError(ValueError):
    """A `fake-...` model name, or a knob, that doesn't exist."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """One request's behaviour; the default is a provider on a good day.

    "Events" are those of a stream, in the order they are sent, the terminator included. A whole reply counts as two:
    its first and its second half.
    """

    # When things are sent. Between events the server yields to its loop even when event_delay_s is 0.
    header_delay_s: float = 0.0
    body_delay_s: float = 0.0
    event_delay_s: float = 0.0
    is_joined: bool = False  # all events in one write
    waits_for_calls: int = 0  # after its head: until so many calls have been open at the same time

    # What the reply says. One word is one token; `chunks` alone makes up that many words, one an event.
    text: str | None = None
    chunks: int | None = None
    huge_event_bytes: int = 0
    thinking: Sequence[
        str
    ] = ()  # blocks before the reply; Anthropic signs each, chat completions have them as one text
    redacted_thinking: Sequence[str] = ()  # Anthropic only: blocks of which nobody sees anything, after the others
    echoes_key: bool = False  # the credential inside the reply's text, or inside the error's message

    # What the usage says. `usage` and `start_usage` (Anthropic's message_start) are sent as they are and change
    # nothing in the ledger's counts; the token knobs add to the totals and to the ledger.
    usage: Mapping[str, Any] | None = None
    start_usage: Mapping[str, Any] | None = None
    omits_usage: bool = False
    cache_read_tokens: int = 0
    cache_write_5m_tokens: int = 0  # Anthropic only
    cache_write_1h_tokens: int = 0  # Anthropic only
    reasoning_tokens: int = 0  # Anthropic has no such figure: there it adds to output_tokens only
    audio_input_tokens: int = 0  # chat completions only
    audio_output_tokens: int = 0  # chat completions only

    # The reply's head. A status of 400 and above sends the provider's own error body.
    status: int = 200
    error_code: str | None = None
    error_message: str | None = None
    retry_after_s: float | None = None
    headers: Mapping[str, str] | None = None
    content_type: str | None = None
    set_cookie: str | None = None
    redirect_to: str | None = None

    # The body. padded_to_bytes: so long in all, each event by as much, with a member that says nothing.
    padded_to_bytes: int | None = None
    body: bytes | None = None  # sent instead of the reply, never as a stream
    truncates_json: bool = False  # a whole body, or the middle event of a stream, loses its second half
    is_gzipped: bool = False
    gzip_bomb_bytes: int = 0  # that many bytes once unpacked
    is_crlf: bool = False
    omits_done: bool = False  # without the last event: [DONE], message_stop, response.completed
    error_after_events: int | None = None  # then the provider's error event, and a clean end
    comments_after_events: int | None = None  # then `: keep-alive` for ever
    writes_single_bytes: bool = False

    # The connection.
    hangs_before_headers: bool = False
    hangs_up: bool = False  # closed after the request was read, without a word
    hang_after_events: int | None = None
    cut_after_events: int | None = None
    cuts_inside_event: bool = False  # half of the next event goes out before the cut
    cut_style: Literal["rst", "close"] = "rst"

    recording: Recording | None = None  # served as it is; delays, cuts and hangs still apply

    @classmethod
    def from_json(cls, knobs: Mapping[str, Any]) -> Self:
        """A script from `/_enqueue`; `body` is text there. Raises UnknownScriptError for a knob that doesn't exist."""
        known = {f.name for f in fields(cls)}
        if unknown := sorted(set(knobs) - known):
            raise UnknownScriptError(f"no such knob: {', '.join(unknown)}")
        values = dict(knobs)
        if isinstance(values.get("body"), str):
            values["body"] = values["body"].encode()
        if isinstance(values.get("recording"), Mapping):
            values["recording"] = Recording.from_json(values["recording"])
        return cls(**values)


@dataclass(frozen=True, slots=True)
class Preset:
    """A script with a name; `knob` is the one that an argument in the model's name replaces."""

    script: Script
    knob: str | None = None

    def with_argument(self, argument: str) -> Script:
        """The script with its knob set; the preset's own value gives the type. Raises UnknownScriptError."""
        if self.knob is None:
            raise UnknownScriptError("this script takes no argument")
        kind = type(getattr(self.script, self.knob))
        try:
            return replace(self.script, **{self.knob: kind(argument)})
        except ValueError as error:
            raise UnknownScriptError(f"not a {kind.__name__}: {argument}") from error


NEGATIVE_USAGE = {
    "prompt_tokens": -5,
    "completion_tokens": -7,
    "total_tokens": -12,
    "input_tokens": -5,
    "output_tokens": -7,
}
ABSURD_USAGE = dict.fromkeys(NEGATIVE_USAGE, 10**15)
HTML = b"<html><head><title>Bad gateway</title></head><body><h1>502</h1></body></html>"

PRESETS: Mapping[str, Preset] = {
    "normal": Preset(Script()),
    "bench-stream": Preset(Script(chunks=100, event_delay_s=0.0), "event_delay_s"),
    # As many events in each dialect: 104.
    "bench-padded": Preset(Script(padded_to_bytes=3_000)),
    "bench-padded-chat": Preset(Script(chunks=100, padded_to_bytes=36_000)),
    "bench-padded-messages": Preset(Script(chunks=98, padded_to_bytes=36_000)),
    "bench-padded-responses": Preset(Script(chunks=96, padded_to_bytes=36_000)),
    "bench-joined": Preset(Script(chunks=100, is_joined=True), "chunks"),
    "slow": Preset(Script(header_delay_s=1.0), "header_delay_s"),
    "slow-first": Preset(Script(body_delay_s=1.0), "body_delay_s"),
    "drip": Preset(Script(chunks=100, event_delay_s=0.05), "event_delay_s"),
    "chunks": Preset(Script(chunks=100), "chunks"),
    "huge": Preset(Script(huge_event_bytes=10_000_000), "huge_event_bytes"),
    "no-usage": Preset(Script(omits_usage=True)),
    "negative-usage": Preset(Script(usage=NEGATIVE_USAGE)),
    "absurd-usage": Preset(Script(usage=ABSURD_USAGE)),
    "cached": Preset(Script(cache_read_tokens=1000), "cache_read_tokens"),
    "cache-write": Preset(Script(cache_write_5m_tokens=1000), "cache_write_5m_tokens"),
    "reasoning": Preset(Script(reasoning_tokens=500), "reasoning_tokens"),
    "status": Preset(Script(status=500), "status"),
    "400": Preset(Script(status=400)),
    "401": Preset(Script(status=401)),
    "403": Preset(Script(status=403)),
    "404": Preset(Script(status=404)),
    "429": Preset(Script(status=429, retry_after_s=1.0), "retry_after_s"),
    "500": Preset(Script(status=500)),
    "503": Preset(Script(status=503, retry_after_s=1.0), "retry_after_s"),
    "529": Preset(Script(status=529)),
    "quota": Preset(Script(status=429, error_code="insufficient_quota")),
    "leak": Preset(Script(status=401, echoes_key=True), "status"),
    "leak-text": Preset(Script(echoes_key=True)),
    "html": Preset(Script(body=HTML, content_type="text/html")),
    "html-502": Preset(Script(body=HTML, content_type="text/html", status=502)),
    "garbage": Preset(Script(body=b"\x00\xff not json at all {")),
    "empty": Preset(Script(body=b"")),
    "truncated": Preset(Script(truncates_json=True)),
    "gzip": Preset(Script(is_gzipped=True)),
    "gzip-bomb": Preset(Script(gzip_bomb_bytes=100_000_000), "gzip_bomb_bytes"),
    "crlf": Preset(Script(is_crlf=True)),
    "no-done": Preset(Script(omits_done=True)),
    "error-event": Preset(Script(error_after_events=3), "error_after_events"),
    "comments": Preset(Script(comments_after_events=0, event_delay_s=0.02), "comments_after_events"),
    "bytes": Preset(Script(writes_single_bytes=True)),
    "hang": Preset(Script(hang_after_events=3), "hang_after_events"),
    "hang-headers": Preset(Script(hangs_before_headers=True)),
    "hang-up": Preset(Script(hangs_up=True)),
    "cut": Preset(Script(cut_after_events=3), "cut_after_events"),
    "cut-inside": Preset(Script(cut_after_events=3, cuts_inside_event=True), "cut_after_events"),
    "close": Preset(Script(cut_after_events=3, cut_style="close"), "cut_after_events"),
    "redirect": Preset(Script(status=302, redirect_to="/v1/elsewhere")),
    "cookie": Preset(Script(set_cookie="session=fake-session; Path=/; HttpOnly")),
}


def script_for_model(model: str) -> Script | None:
    """The script a model name asks for (`fake-slow-2.5`, `bench-stream`), None for a name that asks for none.

    What follows an "@" makes names differ that ask for the same: `fake-slow-2.5@1`.
    Raises UnknownScriptError for `fake-` followed by anything else, so that a typo never passes as a good day.
    """
    model = model.partition("@")[0]
    if model.startswith("bench-"):
        name = model
    elif model.startswith("fake-"):
        name = model.removeprefix("fake-")
    else:
        return None
    if name in PRESETS:
        return PRESETS[name].script
    stem, _, argument = name.rpartition("-")
    if stem not in PRESETS:
        raise UnknownScriptError(f"no such script: {model}")
    return PRESETS[stem].with_argument(argument)
