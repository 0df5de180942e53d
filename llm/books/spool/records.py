"""Closes as text, for the spool and for staff: one line each, with a checksum."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields
from typing import Any
from uuid import UUID

import orjson

from llm.books.operations import CloseCall
from llm.enums import CallOutcome, UsageSource, UsageStatus
from llm.types import TokenCounts

VERSION = 1


def encode_document(close: CloseCall) -> dict[str, Any]:
    """All fields, in JSON's types. Integers beyond 64 bits can't be in a close, and aren't JSON numbers to us."""
    document = {f.name: getattr(close, f.name) for f in fields(close)}
    document["id"] = str(close.id)
    document["counts"] = asdict(close.counts)
    if not close.releases_claim:
        # In the form that earlier releases write and read.
        del document["releases_claim"]
    return {"version": VERSION, **document}


def close_from(document: Mapping[str, Any]) -> CloseCall:
    """The inverse. Raises KeyError, TypeError or ValueError for any other document."""
    values = dict(document)
    if values.pop("version") != VERSION:
        raise ValueError("a record of another version")
    return CloseCall(
        **{
            **values,
            "id": UUID(values["id"]),
            "status": UsageStatus(values["status"]),
            "outcome": CallOutcome(values["outcome"]),
            "usage_source": UsageSource(values["usage_source"]),
            "counts": TokenCounts(**values["counts"]),
            # Records of earlier releases don't have these.
            "flags": tuple(values.get("flags", ())),
        }
    )


def encode_line(close: CloseCall) -> bytes:
    text = orjson.dumps(encode_document(close))
    return b"%08x %s\n" % (zlib.crc32(text), text)


def read_lines(data: bytes) -> Iterator[tuple[CloseCall | None, int]]:
    """Each whole line as (close, end of the line in `data`); None for a damaged one. A cut last line is left out."""
    start = 0
    while (end := data.find(b"\n", start)) >= 0:
        yield _decode_line(data[start:end]), end + 1
        start = end + 1


def _decode_line(line: bytes) -> CloseCall | None:
    checksum, _, text = line.partition(b" ")
    try:
        if int(checksum, 16) != zlib.crc32(text):
            return None
        return close_from(orjson.loads(text))
    except (KeyError, TypeError, ValueError):
        return None
