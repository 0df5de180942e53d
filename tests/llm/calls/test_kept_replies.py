"""Keeping a reply never costs the caller the reply."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest
from django.db import DatabaseError
from pytest_django import Settings
from structlog.testing import capture_logs

from llm.calls.kept_replies import keep_reply
from llm.calls.runtime import Runtime
from llm.errors import BooksUnavailable
from llm.ids import uuid7


class Books:
    """A runtime whose database refuses to write. tries: how often it was asked to."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.tries = 0

    async def run_db(self, _: Callable[[], Any]) -> None:
        self.tries += 1
        raise self.error


@pytest.mark.parametrize("error", [BooksUnavailable("away"), DatabaseError("full")])
async def test_a_reply_that_cannot_be_written_is_a_line_in_the_log(error: Exception) -> None:
    books, request_id = Books(error), uuid7()
    with capture_logs() as log:
        await keep_reply(cast("Runtime", books), request_id, b"{}", {})
    assert books.tries == 1
    assert log == [
        {
            "event": "idempotency.reply_not_kept",
            "log_level": "warning",
            "request_id": f"req_{request_id.hex}",
            "error": type(error).__name__,
        }
    ]


async def test_a_large_reply_is_not_even_tried(settings: Settings) -> None:
    settings.LLM_KEPT_REPLY_BYTES = 3
    books = Books(DatabaseError())
    await keep_reply(cast("Runtime", books), uuid7(), b"1234", {})
    assert books.tries == 0
