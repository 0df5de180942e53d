"""What SQLite's `INSERT OR REPLACE` and `UPDATE OR REPLACE` could delete, according to a table's schema.

REPLACE deletes conflicting rows, and runs no DELETE trigger for them unless `recursive_triggers` is on. Our connections
switch it on; other clients' don't. So a write that conflicts with a protected row is refused before it begins, whatever
its conflict clause says.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

from django.db.backends.utils import CursorWrapper

_COLUMN = re.compile(r'"(\w+)"')
_ROWID = "rowid"


@dataclass(frozen=True, slots=True)
class UniqueKey:
    """condition: of a partial index, as in the schema; "" if the index covers every row."""

    columns: tuple[str, ...]
    condition: str = ""

    def collides(self, guard: str, table: str, event: str) -> str:
        """SQL: whether the new row has this key in common with another row for which `guard` holds. guard: over `kept`,
        or "".
        """
        conditions = [f"kept.{column} = NEW.{column}" for column in self.columns]
        if self.condition:
            conditions += [_over(row, self.condition) for row in ("kept", "NEW")]
        if event == "UPDATE":
            conditions.append(f"kept.{_ROWID} <> OLD.{_ROWID}")
        if guard:
            conditions.append(f"({guard})")
        exists = f"EXISTS (SELECT 1 FROM {table} kept WHERE {' AND '.join(conditions)})"  # noqa: S608
        if event == "INSERT" or self.condition:
            return exists
        # Hardly any update changes a key, so the index needn't be searched.
        changes = " OR ".join(f"NEW.{column} IS NOT OLD.{column}" for column in self.columns)
        return f"(({changes}) AND {exists})"


def _over(row: str, condition: str) -> str:
    """condition: over quoted columns, as Django writes it."""
    columns = _COLUMN.sub(row + r".\1", condition)
    return f"({columns})"


def unique_keys(cursor: CursorWrapper, table: str) -> Sequence[UniqueKey]:
    """All keys of the table, including rowid (or the integer primary key that is the same)."""
    return (UniqueKey((_ROWID,)), *sorted(_indexed_keys(cursor, table), key=lambda key: (key.columns, key.condition)))


def _indexed_keys(cursor: CursorWrapper, table: str) -> Iterator[UniqueKey]:
    cursor.execute(
        "SELECT list.name, coalesce(master.sql, ''), info.name FROM pragma_index_list(%s) list "
        "JOIN sqlite_master master ON master.type = 'index' AND master.name = list.name "
        'JOIN pragma_index_info(list.name) info WHERE list."unique" ORDER BY list.name, info.seqno',
        [table],
    )
    for (_, sql), rows in groupby(cursor.fetchall(), key=itemgetter(0, 1)):
        columns = tuple(column for *_, column in rows)
        if None not in columns:
            yield UniqueKey(columns, sql.partition(" WHERE ")[2])
