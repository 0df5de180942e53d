"""For those who watch the process: alive, ready, and its figures."""

from __future__ import annotations

import asyncio
import hmac
import os
from collections.abc import Iterator
from pathlib import Path

import orjson
from django.conf import settings
from django.db import connection
from django.http import HttpResponse
from drf_spectacular.utils import extend_schema
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from rest_framework.request import Request

from llm.api.auth import secret_of
from llm.api.views import AsyncAPIView
from llm.errors import BooksUnavailable, InvalidKey
from llm.models import Usage
from llm.runtime import runtime

_PATIENCE_S = 3.0
_MOST_COUNTED = 100_000


class HealthView(AsyncAPIView):
    """The process answers. It asks nobody else."""

    requires_key = False

    @extend_schema(exclude=True)
    async def get(self, request: Request) -> HttpResponse:
        return HttpResponse(b'{"status":"ok"}', content_type="application/json")


class ReadyView(AsyncAPIView):
    """Whether calls would be taken: the database answers and the process is not about to stop."""

    requires_key = False

    @extend_schema(exclude=True)
    async def get(self, request: Request) -> HttpResponse:
        writer = runtime().writer
        state = {
            "database": await _database_state(),
            "process": "draining" if runtime().is_draining else "ok",
            "writer": "away" if writer.is_away else "ok",
            "spool": "full" if writer.spool.is_full else "ok",
        }
        is_ready = set(state.values()) == {"ok"}
        figures = {"writes_waiting": writer.waiting, "spool_bytes": writer.spool_bytes}
        body = {"status": "ok" if is_ready else "unavailable", **state, **figures}
        return HttpResponse(orjson.dumps(body), status=200 if is_ready else 503, content_type="application/json")


class MetricsView(AsyncAPIView):
    """Prometheus' text format, summed over this host's processes. LLM_METRICS_TOKEN, if set, is asked for."""

    requires_key = False

    @extend_schema(exclude=True)
    async def get(self, request: Request) -> HttpResponse:
        _check_token(request)
        return HttpResponse(_exposition(await _open_rows()), content_type=CONTENT_TYPE_LATEST)


def _check_token(request: Request) -> None:
    expected: str = settings.LLM_METRICS_TOKEN
    if not expected:
        return
    headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in request.headers.items()]
    try:
        is_right = hmac.compare_digest(secret_of(headers).encode(), expected.encode())
    except InvalidKey:
        # None was sent, or two: that says nothing of API keys here.
        is_right = False
    if not is_right:
        raise InvalidKey("This needs the token in LLM_METRICS_TOKEN, as “Authorization: Bearer …”.")


async def _database_state() -> str:
    try:
        async with asyncio.timeout(_PATIENCE_S):
            await runtime().run_db(_ask_database)
    except (TimeoutError, BooksUnavailable):
        return "unavailable"
    return "ok"


def _ask_database() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")


async def _open_rows() -> int | None:
    """Of all hosts, the only figure that is not of this host alone; None while the database is away."""
    try:
        async with asyncio.timeout(_PATIENCE_S):
            return await runtime().run_db(_count_open_rows)
    except (TimeoutError, BooksUnavailable):
        return None


def _count_open_rows() -> int:
    return Usage.objects.open().order_by()[:_MOST_COUNTED].count()


def _exposition(open_rows: int | None) -> bytes:
    registry = CollectorRegistry()
    if folder := os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        _forget_dead_processes(Path(folder))
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    else:
        registry.register(REGISTRY)
    if open_rows is not None:
        registry.register(_OpenRows(open_rows))
    return generate_latest(registry)


class _OpenRows:
    def __init__(self, count: int) -> None:
        self._count = count

    def collect(self) -> Iterator[GaugeMetricFamily]:
        help_text = "Calls on the books that are not closed, of all processes."
        yield GaugeMetricFamily("llm_open_rows", help_text, self._count)


def _forget_dead_processes(folder: Path) -> None:
    """What a process had under way ended with it; what it has counted stays."""
    for path in folder.glob("gauge_live*_*.db"):
        pid = int(path.stem.rpartition("_")[2])
        if not _is_alive(pid):
            mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
