"""jsonl: one file a table, one JSON object a line. Money is a string, tokens and ids are numbers, nothing is null."""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from billing.exports.cells import Value
from billing.exports.files import ExportFiles
from billing.exports.tabular import Rows, TabularWriter


class JsonRows:
    def __init__(self, files: ExportFiles, name: str, header: Sequence[str]) -> None:
        self._file = files.create(name)
        self._names = tuple(header)

    def add(self, row: Sequence[Value]) -> None:
        record = dict(zip(self._names, row, strict=True))
        self._file.write(orjson.dumps(record, str, orjson.OPT_APPEND_NEWLINE))
        self._file.rows += 1


class JsonlWriter(TabularWriter):
    def open_table(self, name: str, header: Sequence[str]) -> Rows:
        return JsonRows(self.files, f"{name}.jsonl", header)
