"""Sends malformed requests to a gateway and judges what comes back, and what has become of the books."""

from __future__ import annotations

import http.client
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import orjson

from llm.enums import CallOutcome, UsageStatus
from llm.models import Usage
from tests.books import all_closed_usage
from tests.fakes import FakeUpstream
from tests.fakes.ledger import Entry
from tests.malformed.bodies import COUNT_TOKENS, INPUT_TOKENS, MESSAGES, NATIVE
from tests.malformed.mutations import MalformedRequest, malform

PATIENCE_S = 60.0
_ANTHROPICS = (MESSAGES, COUNT_TOKENS)
_COUNTING = (COUNT_TOKENS, INPUT_TOKENS)


@dataclass(frozen=True)
class Reply:
    status: int
    content_type: str
    body: bytes


@dataclass
class Verdict:
    statuses: Counter[int] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)


def run(url: str, secret: str, *, paths: tuple[str, ...], seed: int, numbers: range) -> Verdict:
    """One request after the other, of each path in turn."""
    verdict = Verdict()
    for number in numbers:
        for path in paths:
            request = malform(path, seed=seed, number=number)
            reply = send(url, secret, request)
            verdict.statuses[reply.status] += 1
            verdict.problems += [f"{request.name}: {problem}" for problem in find_problems(request, reply)]
    return verdict


def send(url: str, secret: str, request: MalformedRequest) -> Reply:
    """On a connection of its own, so that one reply can't be taken for another."""
    address = urlsplit(url)
    connection = http.client.HTTPConnection(str(address.hostname), int(address.port or 0), timeout=PATIENCE_S)
    try:
        connection.putrequest("POST", request.path + request.query, skip_accept_encoding=True)
        usual = {"content-type": b"application/json", "authorization": f"Bearer {secret}".encode()}
        replaced = {name for name, _ in request.headers}
        headers = [*((name, usual[name]) for name in usual if name not in replaced), *request.headers]
        framing = (("content-length", str(len(request.body)).encode()), ("connection", b"close"))
        for name, value in (*headers, *framing):
            connection.putheader(name, value)
        connection.endheaders(request.body)
        reply = connection.getresponse()
        return Reply(reply.status, reply.getheader("content-type") or "", reply.read())
    finally:
        connection.close()


# --- What is wrong with a reply ---------------------------------------------------------------------------------------


def find_problems(request: MalformedRequest, reply: Reply) -> Iterator[str]:
    if reply.status >= 500:
        yield f"{reply.status} {_shown(reply.body)}"
    if reply.content_type.startswith("text/event-stream"):
        yield from _find_problems_in_stream(request.path, reply)
    elif reply.content_type != "application/json":
        yield f"{reply.status} of type {reply.content_type!r}: {_shown(reply.body)}"
    else:
        yield from _find_problems_in_document(request.path, reply)


def _find_problems_in_document(path: str, reply: Reply) -> Iterator[str]:
    try:
        document = orjson.loads(reply.body)
    except orjson.JSONDecodeError:
        yield f"{reply.status} that isn't JSON: {_shown(reply.body)}"
        return
    if reply.status >= 400 and not is_error_of(path, document):
        yield f"{reply.status} isn't an error of its dialect: {_shown(reply.body)}"


def _find_problems_in_stream(path: str, reply: Reply) -> Iterator[str]:
    if reply.status != 200:
        yield f"a stream with status {reply.status}"
    lines = reply.body.replace(b"\r\n", b"\n").split(b"\n")
    events = [line.removeprefix(b"data: ") for line in lines if line.startswith(b"data: ")]
    if not events:
        yield "a stream without events"
    for event in events:
        if event != b"[DONE]":
            yield from _find_problems_in_event(path, event)


def _find_problems_in_event(path: str, event: bytes) -> Iterator[str]:
    try:
        document = orjson.loads(event)
    except orjson.JSONDecodeError:
        yield f"an event that isn't JSON: {_shown(event)}"
        return
    is_error = isinstance(document, dict) and isinstance(document.get("error"), dict)
    if is_error and not is_error_of(path, document):
        yield f"an error event that isn't of its dialect: {_shown(event)}"


def is_error_of(path: str, document: Any) -> bool:
    """Whether an SDK of the dialect reads it as an error with a message."""
    if not isinstance(document, dict) or not isinstance(error := document.get("error"), dict):
        return False
    if not isinstance(error.get("message"), str) or not error["message"]:
        return False
    if path in _ANTHROPICS:
        return document.get("type") == "error" and isinstance(error.get("type"), str)
    if path == NATIVE:
        return set(error) == {"message", "code"}
    return set(error) == {"message", "type", "param", "code"}


def _shown(body: bytes) -> str:
    return repr(body[:400])


# --- The books --------------------------------------------------------------------------------------------------------


def find_problems_in_books(upstream: FakeUpstream, *, skipped: int = 0) -> Iterator[str]:
    """A row for each call that the upstream has seen, none left open. skipped: the oldest rows.

    A request that is refused before anything is sent is no call.
    """
    rows = all_closed_usage()[skipped:]
    yield from (f"row {row.pk} without a call: {row.error_code}" for row in rows if row.outcome == CallOutcome.NOT_SENT)
    sent = [row for row in rows if not _is_count(row)]
    entries = [entry for entry in upstream.ledger.entries() if entry.path not in _COUNTING or entry.status != 200]
    if len(sent) != len(entries):
        yield f"{len(sent)} rows of calls that were sent, {len(entries)} calls upstream"
    served = {entry.response_id: entry for entry in entries if entry.response_id}
    for row in sent:
        entry = served.get(row.upstream_response_id)
        if entry is not None and (row.prompt_tokens, row.completion_tokens) != _tokens(entry):
            yield f"row {row.pk}: {row.prompt_tokens}+{row.completion_tokens} tokens, upstream {_tokens(entry)}"


def _is_count(row: Usage) -> bool:
    """Of tokens: where the provider doesn't count them, we do."""
    return row.status == UsageStatus.SETTLED and not row.is_billable


def _tokens(entry: Entry) -> tuple[int, int]:
    return entry.prompt_tokens, entry.completion_tokens
