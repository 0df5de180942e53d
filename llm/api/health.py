"""For monitoring: alive, ready, and metrics."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import orjson
from django.conf import settings
from django.http import HttpResponse
from drf_spectacular.utils import extend_schema
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from rest_framework.request import Request

from llm.api.auth import read_secret
from llm.api.views import AsyncAPIView
from llm.calls.runtime import runtime
from llm.db.connection_budget import ServerLimits, connection_budget, read_server_limits
from llm.errors import BooksUnavailable, InvalidKey
from llm.models import OpenCall

_PATIENCE_S = 3.0
_MAX_COUNTED = 100_000


class HealthView(AsyncAPIView):
    """The process answers. Nothing else is asked."""

    requires_key = False

    @extend_schema(exclude=True)
    async def get(self, request: Request) -> HttpResponse:
        return HttpResponse(b'{"status":"ok"}', content_type="application/json")


class ReadyView(AsyncAPIView):
    """Whether calls would be accepted: the database answers and the process isn't about to stop."""

    requires_key = False

    @extend_schema(exclude=True)
    async def get(self, request: Request) -> HttpResponse:
        writer, limits = runtime().writer, await _server_limits()
        state = {
            "database": "unavailable" if limits is None else "ok",
            "process": "draining" if runtime().is_draining else "ok",
            "writer": "away" if writer.is_away else "ok",
            "spool": "full" if writer.spool.is_full else "ok",
        }
        is_ready = set(state.values()) == {"ok"}
        figures = {"writes_waiting": writer.waiting, "spool_bytes": writer.spool_bytes}
        body = {
            "status": "ok" if is_ready else "unavailable",
            **state,
            **figures,
            "targets_skipped": runtime().health.skipped,
            "connections": _connections(limits),
        }
        return HttpResponse(orjson.dumps(body), status=200 if is_ready else 503, content_type="application/json")


class MetricsView(AsyncAPIView):
    """Prometheus text format, summed over this host's processes. Requires LLM_METRICS_TOKEN, if set."""

    requires_key = False

    @extend_schema(exclude=True)
    async def get(self, request: Request) -> HttpResponse:
        _check_token(request)
        return HttpResponse(await runtime().share(_figures), content_type=CONTENT_TYPE_LATEST)


def _check_token(request: Request) -> None:
    expected: str = settings.LLM_METRICS_TOKEN
    if not expected:
        return
    headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in request.headers.items()]
    try:
        is_right = hmac.compare_digest(read_secret(headers).encode(), expected.encode())
    except InvalidKey:
        # None was sent, or two: API keys are irrelevant here.
        is_right = False
    if not is_right:
        raise InvalidKey("This needs the token in LLM_METRICS_TOKEN, as “Authorization: Bearer …”.")


async def _server_limits() -> ServerLimits | None:
    """None while the database is unavailable. Asked in the calls' lane, since whether calls would be accepted is the
    question.
    """
    with contextlib.suppress(TimeoutError, BooksUnavailable):
        async with asyncio.timeout(_PATIENCE_S):
            return await runtime().share(_read_limits)
    return None


async def _read_limits() -> ServerLimits:
    return await runtime().run_db(read_server_limits)


def _connections(limits: ServerLimits | None) -> dict[str, int | None]:
    """The budget of all processes and hosts, and the server's limits: null while unknown, and on SQLite.

    Whether they fit is reported at startup. It doesn't matter to a load balancer, and neither does the load of pages.
    """
    budget = connection_budget()
    return {**asdict(budget), "total": budget.total, "available": limits.available if limits else None}


async def _figures() -> bytes:
    return _exposition(await _open_rows())


async def _open_rows() -> int | None:
    """Over all hosts, the only such figure; None while the database is unavailable."""
    try:
        async with asyncio.timeout(_PATIENCE_S):
            return await runtime().run_side_db(_count_open_rows)
    except (TimeoutError, BooksUnavailable):
        return None


def _count_open_rows() -> int:
    return OpenCall.objects.order_by()[:_MAX_COUNTED].count()


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
        help_text = "Open calls on the books, across all processes."
        yield GaugeMetricFamily("llm_open_rows", help_text, self._count)


def _forget_dead_processes(folder: Path) -> None:
    """In-flight gauges of a process that died are dropped; its counters stay."""
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
