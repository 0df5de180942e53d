"""What is given back to the system, and what errors keep from it."""

from __future__ import annotations

import weakref
from typing import Any

import pytest

from llm.bodies import trimming
from llm.bodies.trimming import WORTH_TRIMMING_BYTES, trim_memory, trimmed_after
from llm.errors import InternalError, without_frames


class Reply:
    """Something large."""


@pytest.mark.parametrize(("sizes", "times"), [((1, WORTH_TRIMMING_BYTES, 1), 1), ((WORTH_TRIMMING_BYTES - 1,), 0)])
def test_what_was_once_large_is_trimmed_after_at_its_end(
    monkeypatch: pytest.MonkeyPatch, sizes: tuple[int, ...], times: int
) -> None:
    trims: list[Any] = []
    monkeypatch.setattr(trimming, "trim_soon", lambda: trims.append(1))
    with trimmed_after() as note_size:
        for size in sizes:
            note_size(size)
        assert trims == []
    assert len(trims) == times


def test_an_error_without_frames_holds_nothing_that_it_came_through() -> None:
    held: list[weakref.ref[Reply]] = []

    def fail() -> None:
        reply = Reply()
        held.append(weakref.ref(reply))
        raise ValueError

    kept = InternalError("Something went wrong.")
    try:
        fail()
    except ValueError as cause:
        kept.__cause__ = cause
    assert held[0]() is not None
    assert without_frames(kept) is kept
    assert held[0]() is None


def test_memory_can_be_trimmed_whatever_the_c_library() -> None:
    trim_memory()
