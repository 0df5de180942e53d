"""Celery's broker if no other is configured: files in a folder, each of which appears complete.

Kombu's own transport writes a message into a file that its reader is already looking for, so a quick reader finds half
a message or nothing, and dies of it.
"""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from typing import Any

from kombu.transport import filesystem
from kombu.utils.json import dumps


class Channel(filesystem.Channel):
    def _put(self, queue: str, payload: Any, **_kwargs: Any) -> None:  # type: ignore[override]  # the parent's name for it
        """Named as kombu's reader expects, which takes the oldest first."""
        name = f"{round(time.monotonic() * 1000)}_{uuid.uuid4()}.{queue}.msg"
        folder = Path(self.data_folder_out)
        unfinished = folder / f"unfinished.{name}"
        unfinished.write_text(dumps(payload))  # type: ignore[no-untyped-call]
        unfinished.replace(folder / name)


class Transport(filesystem.Transport):
    Channel = Channel
