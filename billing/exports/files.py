"""The files of an export. Their SHA-256 is computed while they are written, so that no file is read again."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """rows: data rows, without headings. bytes, sha256: of the whole file."""

    name: str
    rows: int
    bytes: int
    sha256: str


class HashedFile:
    """An append-only file. rows: counted by its writer."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows = 0
        self._file = path.open("xb")
        self._sha256 = hashlib.sha256()
        self._bytes = 0

    def write(self, data: bytes) -> int:
        self._sha256.update(data)
        self._bytes += len(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()

    def close(self, *, durably: bool = False) -> None:
        """durably: return only once it is on disk."""
        if durably:
            self._file.flush()
            os.fsync(self._file.fileno())
        self._file.close()

    @property
    def written(self) -> WrittenFile:
        return WrittenFile(self.path.name, self.rows, self._bytes, self._sha256.hexdigest())


class TextFile:
    """UTF-8 text into a `HashedFile`, as `csv.writer` needs it."""

    def __init__(self, file: HashedFile) -> None:
        self.file = file

    def write(self, text: str) -> int:
        return self.file.write(text.encode())


class ExportFiles:
    """All files of one export, in one folder. Leaving the block closes the open ones as they are."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open: list[HashedFile] = []
        self._written: list[WrittenFile] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._open:
            file.close()

    def create(self, name: str) -> HashedFile:
        """Raises FileExistsError if two formats use the same name."""
        file = HashedFile(self.folder / name)
        self._open.append(file)
        return file

    def add(self, name: str, content: bytes) -> None:
        self.create(name).write(content)

    def close(self) -> list[WrittenFile]:
        """Flush all files to disk and return them by name, whatever the order of the formats."""
        while self._open:
            file = self._open.pop()
            file.close(durably=True)
            self._written.append(file.written)
        return sorted(self._written, key=lambda written: written.name)
