"""Calls written into the books by a thread whose database connection is measured. Imported once Django is set up."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path

from django.db import connection, connections

from llm.books import statements
from llm.books.batches.commit import commit_batch
from llm.books.operations import CloseCall, Closed, OpenCall, Opened, Operation
from llm.db.prepared import prepare_statements_of_this_thread
from llm.enums import CallOutcome, Dialect, UsageSource, UsageStatus
from llm.ids import boot_id, uuid7
from llm.models import ApiKey, CatalogVersion
from llm.types import TOKEN_FIELDS, TokenCounts

_WARM_UP = 8
_LARGEST_BATCH = 500


class BatchThread:
    """Opens and closes calls of a key, on a connection of its own. is_prepared: as the books' writer does it now."""

    def __init__(self, key: ApiKey, *, is_prepared: bool) -> None:
        self._key = key
        self._is_prepared = is_prepared
        self._version = CatalogVersion.current()
        self._thread = ThreadPoolExecutor(1)
        self._pid = self._thread.submit(self._connect).result()

    def cpu_ms_per_call(self, calls: int, batch: int) -> float:
        """Of the server's process behind the connection, which must run on this machine."""
        return self._thread.submit(self._measure, calls, batch).result()

    def open(self, calls: int) -> None:
        """They stay open."""
        self._thread.submit(self._keep_open, calls).result()

    def _keep_open(self, calls: int) -> None:
        with nullcontext() if self._is_prepared else former_statements():
            self._open(calls)

    def close(self) -> None:
        self._thread.submit(connections.close_all).result()
        self._thread.shutdown()

    def _connect(self) -> int:
        if self._is_prepared:
            prepare_statements_of_this_thread()
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            return int(cursor.fetchone()[0])

    def _measure(self, calls: int, batch: int) -> float:
        if self._is_prepared:
            self._make_calls(_WARM_UP * batch, batch)
            return self._measure_calls(calls, batch)
        with former_statements():
            self._make_calls(_WARM_UP * batch, batch)
            return self._measure_calls(calls, batch)

    def _measure_calls(self, calls: int, batch: int) -> float:
        before = _cpu_ms(self._pid)
        self._make_calls(calls, batch)
        return (_cpu_ms(self._pid) - before) / calls

    def _make_calls(self, calls: int, batch: int) -> None:
        for _ in range(calls // batch):
            opened = self._open(batch)
            _commit([self._closing(each) for each in opened], Closed)

    def _open(self, calls: int) -> Sequence[OpenCall]:
        opening = [self._opening() for _ in range(calls)]
        for start in range(0, calls, _LARGEST_BATCH):
            _commit(opening[start : start + _LARGEST_BATCH], Opened)
        return opening

    def _opening(self) -> OpenCall:
        return OpenCall(
            id=(call_id := uuid7()),
            request_id=call_id,
            attempt=1,
            account_id=self._key.account_id,
            key_id=self._key.pk,
            process_id=boot_id(),
            dialect=Dialect.OPENAI_CHAT,
            provider="openai",
            model="gpt-4o",
            upstream_model="gpt-4o",
            is_stream=False,
            catalog_version=self._version,
            request_bytes=100,
        )

    def _closing(self, opened: OpenCall) -> CloseCall:
        return CloseCall(
            id=opened.id,
            status=UsageStatus.SETTLED,
            outcome=CallOutcome.OK,
            usage_source=UsageSource.REPORTED,
            counts=TokenCounts(9, 4),
            cost_pico=62_500_000,
            reported_model="gpt-4o-2024-08-06",
            upstream_response_id=f"chatcmpl-{opened.id.hex}",
            upstream_status=200,
            first_byte_ms=10,
            duration_ms=20,
            account_id=opened.account_id,
        )


FORMER_TABLE = """
CREATE TABLE former_usage (LIKE llm_usage INCLUDING ALL);
CREATE INDEX former_usage_open ON former_usage (id) WHERE status = 'open';
ALTER TABLE former_usage
    ADD FOREIGN KEY (account_id) REFERENCES llm_account DEFERRABLE INITIALLY DEFERRED,
    ADD FOREIGN KEY (api_key_id) REFERENCES llm_apikey DEFERRABLE INITIALLY DEFERRED,
    ADD FOREIGN KEY (price_id) REFERENCES llm_price DEFERRABLE INITIALLY DEFERRED,
    ADD FOREIGN KEY (rate_set_id) REFERENCES llm_rateset DEFERRABLE INITIALLY DEFERRED
"""
"""Open and closed calls in one table, as until version 0.1; its trigger is left out."""


@contextmanager
def former_statements() -> Iterator[None]:
    """A call is inserted open, and updated when it is closed; its row is found as before rows were found by key."""
    columns = {**statements.CLOSE_COLUMNS, **statements._CLOSE_STAMPS}
    shape = ", ".join(f"{name} {kind}" for name, kind in {"id": "uuid", **columns}.items())
    assignments = ", ".join(f"{name} = v.{name}" for name in columns)
    empty = {
        **dict.fromkeys(("error_code", "reported_model", "upstream_response_id", "flags"), "''"),
        **dict.fromkeys(TOKEN_FIELDS, "0"),
        "status": "'open'",
        "usage_source": "'none'",
        "outcome": "'pending'",
        "extra_meters": "'{}'",
        "is_billable": "true",
        "is_disputed": "false",
        "recorded_at": "opened_at",
    }
    opened = ", ".join(statements.OPEN_COLUMNS)
    opened_shape = ", ".join(f"{name} {kind}" for name, kind in statements.OPEN_COLUMNS.items())
    former = {
        "rows_touched_sql": (
            f"SELECT {statements._TOUCHED} FROM former_usage WHERE id = ANY(%s::uuid[]) AND status = 'open' "  # noqa: S608
            "ORDER BY id FOR UPDATE"
        ),
        "insert_open_sql": (
            f"INSERT INTO former_usage ({opened}, {', '.join(empty)}) SELECT {opened}, {', '.join(empty.values())} "  # noqa: S608
            f"FROM jsonb_to_recordset(%s::jsonb) AS v({opened_shape}) ORDER BY v.id"
        ),
        "insert_closed_sql": (
            f"UPDATE former_usage SET {assignments} FROM jsonb_to_recordset(%s::jsonb) AS v({shape}) "  # noqa: S608
            # Its second parameter, the ids, is new; the comparison is folded away.
            "WHERE former_usage.id = v.id AND former_usage.status = 'open' AND %s <> '' RETURNING former_usage.id"
        ),
        # Nothing was deleted.
        "delete_open_sql": "SELECT 1 WHERE %s = ''",
    }
    current = {name: vars(statements)[name] for name in former}
    vars(statements).update({name: partial(_given, sql) for name, sql in former.items()})
    try:
        yield
    finally:
        vars(statements).update(current)


def _given(sql: str, _vendor: str) -> str:
    return sql


def _commit(operations: Sequence[Operation], expected: type) -> None:
    results = commit_batch(operations)
    if not all(isinstance(each, expected) for each in results):
        raise RuntimeError(f"Expected {expected.__name__} of each, but the books answered {results[:3]}.")


def _cpu_ms(pid: int) -> float:
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e6
