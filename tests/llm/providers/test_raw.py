"""A reply as bytes: our key struck out wherever the stream is split, failures translated, the connection closed."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from itertools import pairwise

import httpx2
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from llm.errors import UpstreamFailed, UpstreamTimeout
from llm.providers.raw import StreamRedactor, UpstreamReply
from llm.providers.redaction import SHORTEST_SECRET, forms_of

SECRET = "sk-our-own-upstream-key-0123456789"
FORMS = forms_of(SECRET)


def redacted(secret: str, pieces: list[bytes]) -> bytes:
    redactor = StreamRedactor(secret)
    return b"".join([*(redactor.feed(piece) for piece in pieces), redactor.finish()])


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(places)]


# Few letters, so that secrets overlap themselves and their beginnings are everywhere.
secrets = st.text("ab", min_size=SHORTEST_SECRET, max_size=SHORTEST_SECRET + 4)


@st.composite
def streams(draw: st.DrawFn) -> tuple[str, bytes]:
    secret = draw(secrets)
    parts = draw(
        st.lists(
            st.one_of(
                st.just(secret),
                st.integers(0, len(secret)).map(lambda length: secret[:length]),
                st.text("abc", max_size=6),
            ),
            max_size=8,
        )
    )
    return secret, "".join(parts).encode()


@pytest.mark.slow
@given(streams(), st.lists(st.integers(0, 10_000), max_size=30))
def test_redaction_is_the_same_however_the_stream_is_split(stream: tuple[str, bytes], cuts: list[int]) -> None:
    secret, data = stream
    assert redacted(secret, split(data, cuts)) == data.replace(secret.encode(), b"[redacted]")


@pytest.mark.slow
@given(streams())
def test_redaction_is_the_same_byte_by_byte(stream: tuple[str, bytes]) -> None:
    secret, data = stream
    pieces = [data[at : at + 1] for at in range(len(data))]
    assert redacted(secret, pieces) == data.replace(secret.encode(), b"[redacted]")


@given(st.lists(st.binary(max_size=40), max_size=10))
def test_what_holds_no_secret_passes_at_once_but_for_a_beginning_of_it(pieces: list[bytes]) -> None:
    data = b"".join(pieces)
    assume(not any(form in data for form in FORMS.forms))
    redactor = StreamRedactor(SECRET)
    passed = b""
    for piece in pieces:
        passed += redactor.feed(piece)
        held = len(redactor._held)
        assert held < FORMS.longest
        assert not held or any(form.startswith(redactor._held) for form in FORMS.forms)
    assert passed + redactor.finish() == data


@given(st.integers(0, 2), st.text("ab ", max_size=9), st.lists(st.integers(0, 10_000), max_size=30))
def test_base64_is_struck_out_however_it_is_aligned_and_split(offset: int, around: str, cuts: list[int]) -> None:
    encoded = base64.b64encode(b"x" * offset + SECRET.encode() + around.encode())
    data = around.encode() + b'{"content":"' + encoded + b'"}' + around.encode()
    told = redacted(SECRET, split(data, cuts))
    assert told.count(b"[redacted]") == 1
    assert told == redacted(SECRET, [data])
    assert not any(form in told for form in FORMS.forms)


@pytest.mark.parametrize("shown", ["our-own-upstream-key-0123456789", "own-upstream-key-0123456789"])
@given(st.lists(st.integers(0, 10_000), max_size=30))
def test_the_key_without_its_prefix_is_struck_out(shown: str, cuts: list[int]) -> None:
    assert redacted(SECRET, split(f"<{shown}> sk-".encode(), cuts)) == b"<[redacted]> sk-"


def test_an_event_is_not_held_back() -> None:
    event = b'data: {"choices":[{"delta":{"content":"this is"}}]}\n\n'
    assert StreamRedactor(SECRET).feed(event) == event


def test_the_shortest_secret_is_struck_out_and_a_shorter_one_is_a_word() -> None:
    secret = "x" * SHORTEST_SECRET
    assert redacted(secret, [f"<{secret}>".encode()]) == b"<[redacted]>"
    assert redacted(secret[1:], [f"<{secret}>".encode()]) == f"<{secret}>".encode()


def test_without_a_secret_nothing_is_touched() -> None:
    data = b"anything"
    assert StreamRedactor("").feed(data) is data


# --- The reply --------------------------------------------------------------------------------------------------------


class Body(httpx2.AsyncByteStream):
    """Sends its pieces, then fails if it was given an error to fail with."""

    def __init__(self, *pieces: bytes, error: Exception | None = None) -> None:
        self._pieces = pieces
        self._error = error
        self.is_closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            yield piece
        if self._error is not None:
            raise self._error

    async def aclose(self) -> None:
        self.is_closed = True


def a_reply(body: Body) -> UpstreamReply:
    return UpstreamReply(body, provider="openai", secret=SECRET)


async def test_a_reply_is_its_bytes() -> None:
    assert b"".join([piece async for piece in a_reply(Body(b"one", b"", b"two"))]) == b"onetwo"


async def test_our_key_is_struck_out_of_a_reply() -> None:
    reply = a_reply(Body(b"a sk-our-own-up", b"stream-key-0123456789 b", b" sk-our"))
    assert b"".join([piece async for piece in reply]) == b"a [redacted] b sk-our"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (httpx2.ReadError(f"broke at {SECRET}"), UpstreamFailed),
        (httpx2.ReadTimeout("silent"), UpstreamTimeout),
        (RuntimeError("anything"), UpstreamFailed),
    ],
)
async def test_a_reply_that_breaks_off_may_have_worked(
    error: Exception, kind: type[UpstreamFailed | UpstreamTimeout]
) -> None:
    pieces = aiter(a_reply(Body(b"first", error=error)))
    assert await anext(pieces) == b"first"
    with pytest.raises(kind) as failed:
        await anext(pieces)
    assert failed.value.may_have_worked
    assert failed.value.__cause__ is error
    assert SECRET not in str(failed.value)


async def test_closing_a_reply_closes_what_it_stands_on() -> None:
    body = Body(b"unread")
    await a_reply(body).aclose()
    assert body.is_closed
