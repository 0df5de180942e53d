"""The files of an export, as served: from the job's own folder, and only those named in its manifest, and the
manifest itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from django.conf import settings
from django.http import FileResponse

from billing.models import ExportJob

MANIFEST = "manifest.json"
"""It lists the other files, so it can't list itself."""

_CHUNK_BYTES = 64 * 1024


def files_of(job: ExportJob) -> list[dict[str, Any]]:
    """From the manifest: name, rows, bytes, sha256. Empty until the export is done."""
    return list((job.manifest or {}).get("files", []))


def file_of(job: ExportJob, name: str) -> Path | None:
    """Path of a file of the export; None if it has no file of that name, or the file is gone."""
    if not any(file["name"] == name for file in [*files_of(job), {"name": MANIFEST}]):
        return None
    folder = Path(settings.BILLING_EXPORT_DIR).resolve() / job.folder
    path = (folder / name).resolve()
    return path if path.is_relative_to(folder.resolve()) and path.is_file() else None


class Download(FileResponse):
    """A file sent in chunks that are read off the event loop; under ASGI, Django would read all of it into memory."""

    block_size = _CHUNK_BYTES

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        super().__init__(self._file, as_attachment=True, filename=path.name, content_type="application/octet-stream")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while chunk := await asyncio.to_thread(self._file.read, self.block_size):
            yield chunk
