from __future__ import annotations

import orjson
import pytest

from llm.dialects import transcript
from llm.dialects.base import StreamReader
from llm.dialects.openai_chat.wire import OPENAI_CHAT
from llm.errors import UpstreamFailed
from llm.types import Reading, TokenCounts

HEAD = b'{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"gpt-4o",'
USAGE = b'"usage":{"prompt_tokens":8,"completion_tokens":2,"total_tokens":10}'
COUNTS = TokenCounts(prompt_tokens=8, completion_tokens=2)
DONE = b"data: [DONE]\n\n"


def chunk(text: str, end: bytes = b"") -> bytes:
    delta = orjson.dumps({"content": text})
    return b"data: " + HEAD + b'"choices":[{"index":0,"delta":' + delta + b',"finish_reason":null}]' + end + b"}\n\n"


USAGE_CHUNK = b"data: " + HEAD + b'"choices":[],' + USAGE + b"}\n\n"
NULL = b',"usage":null'


def reader(*, asked: bool) -> StreamReader:
    options = b',"stream_options":{"include_usage":true}' if asked else b""
    raw = b'{"messages":[{"role":"user"}],"stream":true' + options + b"}"
    return OPENAI_CHAT.stream_reader(OPENAI_CHAT.parse(raw))


def test_a_caller_who_asked_for_usage_gets_the_stream_as_it_came() -> None:
    stream = chunk("Hel", NULL) + chunk("lo", NULL) + USAGE_CHUNK + DONE
    for size in (1, 5, 100, 10_000):
        following = reader(asked=True)

        passed = b"".join(following.feed(stream[at : at + size]) for at in range(0, len(stream), size))

        assert passed == chunk("Hel", NULL) + chunk("lo", NULL)
        assert following.is_complete
        assert following.finish() == USAGE_CHUNK + DONE
        assert following.output_text() == "Hello"
        assert following.reading() == Reading(counts=COUNTS, model="gpt-4o", response_id="chatcmpl-1", is_final=True)


def test_a_caller_who_did_not_ask_sees_nothing_of_our_asking() -> None:
    padding = b',"usage":null,"obfuscation":"aB3"'
    stream = chunk("Hel", NULL) + chunk("lo", padding) + USAGE_CHUNK + DONE
    for size in (1, 5, 100, 10_000):
        following = reader(asked=False)

        passed = b"".join(following.feed(stream[at : at + size]) for at in range(0, len(stream), size))

        assert passed == chunk("Hel") + chunk("lo", b',"obfuscation":"aB3"')
        assert following.finish(cost="0.5") == DONE
        assert following.reading().counts == COUNTS


@pytest.mark.parametrize(
    ("came", "goes"),
    [
        (b'data: {"id":"1","usage": null, "choices":[{}]}\n\n', b'data: {"id":"1", "choices":[{}]}\n\n'),
        (b'data: {"id":"1","x":{"a":1,"usage":null}}\n\n', b'data: {"id":"1","x":{"a":1,"usage":null}}\n\n'),
        (b'data: {"id":"1","usage":null}\r\n\r\n', b'data: {"id":"1"}\r\n\r\n'),
        (
            b'data: {"id":"1","x":{"a":1,"usage":null},"usage":null}\n\n',
            b'data: {"id":"1","x":{"a":1,"usage":null}}\n\n',
        ),
    ],
)
def test_null_usage_is_stripped_from_the_chunk_itself_only(came: bytes, goes: bytes) -> None:
    following = reader(asked=False)

    assert following.feed(chunk("a")) == chunk("a")
    assert following.feed(came) == goes


def test_text_that_speaks_of_usage_stays() -> None:
    stream = chunk("a") + chunk(',"usage":null}\n\n') + chunk('"usage":{"prompt_tokens":1}') + chunk("usage")
    for asked in (True, False):
        following = reader(asked=asked)

        assert following.feed(stream) == stream
        assert following.reading().counts is None


def test_the_cost_goes_into_the_usage_chunk_of_who_asked() -> None:
    following = reader(asked=True)
    following.feed(chunk("a") + USAGE_CHUNK + DONE)

    assert following.finish(cost="0.0000325") == (
        b"data: " + HEAD + b'"choices":[],"usage":{"cost": 0.0000325, "prompt_tokens":8,"completion_tokens":2,'
        b'"total_tokens":10}}\n\n' + DONE
    )


def test_usage_on_the_last_content_chunk_is_read_and_passed_on() -> None:
    last = b'data: {"id":"1","choices":[{"index":0,"delta":{"content":"!"},"finish_reason":"stop"}],' + USAGE + b"}\n\n"

    asked, unasked = reader(asked=True), reader(asked=False)

    assert unasked.feed(chunk("a") + last + DONE) == chunk("a") + last
    assert unasked.finish() == DONE
    assert unasked.reading().counts == COUNTS
    assert unasked.reading().is_final
    assert asked.feed(chunk("a") + last + DONE) == chunk("a")
    assert asked.finish(cost="0.5") == last.replace(b'{"prompt', b'{"cost": 0.5, "prompt') + DONE


def test_of_running_totals_the_last_counts() -> None:
    def running(tokens: int) -> bytes:
        return chunk("x", b',"usage":{"prompt_tokens":8,"completion_tokens":%d}' % tokens)

    following = reader(asked=True)

    assert following.feed(running(1) + running(2)) == running(1) + running(2)
    assert following.reading().counts == TokenCounts(prompt_tokens=8, completion_tokens=2)
    assert not following.reading().is_final
    following.feed(USAGE_CHUNK.replace(b'"completion_tokens":2', b'"completion_tokens":3') + DONE)
    assert following.reading().counts == TokenCounts(prompt_tokens=8, completion_tokens=3)
    assert following.reading().is_final


def test_a_usage_chunk_that_was_not_the_last_is_handed_on() -> None:
    following = reader(asked=True)

    assert following.feed(chunk("a") + USAGE_CHUNK) == chunk("a")
    assert following.feed(chunk("b")) == USAGE_CHUNK + chunk("b")
    assert not following.reading().is_final
    assert following.feed(USAGE_CHUNK + DONE) == b""
    assert following.finish() == USAGE_CHUNK + DONE


def test_chunks_without_choices_behind_the_usage_wait_with_it() -> None:
    moderation = b'data: {"id":"chatcmpl-1","choices":[],"moderation":{}}\n\n'
    following = reader(asked=True)

    assert following.feed(chunk("a") + USAGE_CHUNK + moderation + DONE) == chunk("a")
    assert following.finish() == USAGE_CHUNK + moderation + DONE


def test_a_stream_without_usage_says_so() -> None:
    following = reader(asked=False)

    assert following.feed(chunk("a") + DONE) == chunk("a")
    assert following.reading() == Reading(model="gpt-4o", response_id="chatcmpl-1")
    assert following.finish(cost="0.5") == DONE


def test_absurd_usage_of_a_stream_is_kept_aside() -> None:
    following = reader(asked=False)
    following.feed(chunk("a") + USAGE_CHUNK.replace(b":8", b":-8") + DONE)

    assert following.reading().counts is None
    assert following.reading().absurd_usage == {"prompt_tokens": -8, "completion_tokens": 2, "total_tokens": 10}


@pytest.mark.parametrize(
    ("event", "failure"),
    [
        (b'data: {"error":{"message":"sk-secret","type":"server_error","code":null}}\n\n', "server_error"),
        (b'data: {"error":{"message":"sk-secret","code":"Rate-Limit exceeded!"}}\n\n', "rate-limitexceeded"),
        (b'data: {"error":{"code":502}}\n\n', "502"),
        (b'data: {"error":"sk-secret"}\n\n', "error"),
        (b'event: error\ndata: {"error": {"type":"overloaded"}}\n\n', "overloaded"),
        (b'data: {"object":"error","message":"sk-secret","type":"BadRequestError"}\n\n', "badrequesterror"),
        (b'error: {"code":500,"message":"sk-secret","type":"server_error"}\n\n', "server_error"),
        (b"error: sk-secret\n\n", "error"),
        (b'data: {"type":"error","code":"server_busy","message":"sk-secret"}\n\n', "server_busy"),
        (b'data: {"type":"error","message":"sk-secret"}\n\n', "error"),
        (b'data: {"error":{"type":"' + b"x" * 90 + b'"}}\n\n', "x" * 50),
    ],
)
def test_an_error_event_ends_the_stream_and_is_not_handed_on(event: bytes, failure: str) -> None:
    following = reader(asked=True)

    assert following.feed(chunk("a")) == chunk("a")
    assert following.feed(chunk("b") + event + chunk("c") + DONE) == chunk("b")
    assert following.failure == failure
    assert not following.is_complete
    assert following.feed(chunk("d")) == b""
    assert following.finish() == b""


def test_a_null_error_is_none() -> None:
    event = b'data: {"id":"1","error":null,"choices":[]}\n\n'
    following = reader(asked=False)

    assert following.feed(event) == event
    assert following.failure is None


def test_comments_pass_and_are_no_data() -> None:
    following = reader(asked=False)

    assert following.feed(b": OPENROUTER PROCESSING\n\n") == b": OPENROUTER PROCESSING\n\n"
    assert not following.has_data
    assert following.feed(b": ping\n\n" + chunk("a") + b": ping\n\n") == b": ping\n\n" + chunk("a") + b": ping\n\n"
    assert following.has_data


def test_text_that_is_no_event_stream_is_not_handed_on() -> None:
    following = reader(asked=False)

    assert following.feed(b"<html>\n\nsk-secret\n\n</html>\n\n") == b""
    assert not following.has_data


def test_a_stream_that_was_cut_is_not_complete() -> None:
    following = reader(asked=True)

    assert following.feed(chunk("a") + chunk("b")[:30]) == chunk("a")
    assert not following.is_complete
    assert following.finish() == b""
    assert following.output_text() == "a"


@pytest.mark.parametrize("ending", [b"data: [DONE]", b"data: [DONE]\n", b"data:[DONE]\r\n"])
def test_a_last_event_without_its_blank_line_counts(ending: bytes) -> None:
    following = reader(asked=True)
    following.feed(chunk("a") + USAGE_CHUNK + ending)

    assert following.is_complete
    assert following.finish() == USAGE_CHUNK + DONE


def test_crlf_streams_are_read_too() -> None:
    stream = (chunk("a", NULL) + USAGE_CHUNK + DONE).replace(b"\n", b"\r\n")
    following = reader(asked=False)

    assert following.feed(stream) == chunk("a").replace(b"\n", b"\r\n")
    assert following.finish() == b"data: [DONE]\r\n\r\n"
    assert following.reading().counts == COUNTS


def test_what_a_server_without_names_sends_is_read() -> None:
    nameless = b'data: {"id":"","model":"","choices":[],"prompt_filter_results":[]}\n\n'
    following = reader(asked=False)

    assert following.feed(nameless) == nameless
    assert following.feed(chunk("a")) == chunk("a")
    assert following.reading().model == "gpt-4o"


def test_data_that_is_no_json_passes() -> None:
    following = reader(asked=False)

    assert following.feed(b"data: hello\n\n") == b"data: hello\n\n"


def test_all_that_was_generated_is_text() -> None:
    deltas = [
        {"role": "assistant", "content": ""},
        {"reasoning_content": "a"},
        {"content": "b"},
        {"tool_calls": [{"index": 0, "id": "1", "function": {"name": "c", "arguments": ""}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": "d"}}]},
        {"function_call": {"arguments": "e"}},
        {"refusal": "f"},
    ]
    following = reader(asked=False)
    for delta in deltas:
        following.feed(b"data: " + orjson.dumps({"id": "1", "choices": [{"delta": delta}]}) + b"\n\n")

    assert following.output_text() == "abcdef"


def test_text_is_kept_in_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transcript, "MAX_RAW_BYTES", 1000)
    monkeypatch.setattr(transcript, "MAX_TEXT_CHARACTERS", 100)
    following = reader(asked=False)
    for _ in range(30):
        following.feed(chunk("0123456789"))

    assert following.output_text() == "0123456789" * 10
    assert following.dropped_characters == 200


def large(field: str) -> bytes:
    """An event of 200 KB that would take long to read."""
    values = b"[" + b"[]," * 70_000 + b"1]"
    delta = b'{"content":"Hi","x":' + values + b"}"
    return b"data: " + HEAD + b'"choices":[{"index":0,"delta":' + delta + b"}]," + field.encode() + b"}\n\n"


def test_a_costly_event_that_says_nothing_to_us_passes_unread() -> None:
    following = reader(asked=True)
    following.feed(chunk("Hel"))
    assert following.feed(large('"x":1')) == large('"x":1')
    following.feed(chunk("lo") + DONE)
    text = following.output_text()
    assert text.startswith("Hel")
    assert text.endswith("lo")
    # Its beginning stands for it, and the rest counts as the other characters do.
    assert len(text) + following.dropped_characters == len("Hello") + len(large('"x":1')) - len("data: \n\n")


@pytest.mark.parametrize("field", ['"usage":{"prompt_tokens":1}', '"error":{"message":"sk-12345678"}'])
def test_a_costly_event_that_would_have_to_be_read_ends_the_stream(field: str) -> None:
    following = reader(asked=True)
    following.feed(chunk("Hel"))
    with pytest.raises(UpstreamFailed, match="too large"):
        following.feed(large(field))
