"""What tests of code that runs in the gateway's own event loop share."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from django.db import connections

from llm.runtime import runtime


@pytest.fixture
async def one_reader(own_runtime: None, settings: Any) -> AsyncIterator[None]:
    """An own runtime with one reading thread, whose connection is closed: `Runtime.aclose` leaves that to chance."""
    settings.LLM_DB_THREADS = 1
    yield
    with contextlib.suppress(RuntimeError):  # A drained runtime reads nothing any more.
        await runtime().run_db(connections.close_all)
