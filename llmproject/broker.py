"""Celery's settings for each kind of broker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llmproject.env import EnvReader

BROKER_SCHEMES = ("filesystem", "redis", "rediss", "amqp", "amqps")

# Longer than the longest job: Redis redelivers a job that isn't acknowledged by then to a second worker.
_REDIS_VISIBILITY_S = 6 * 3600


def broker_settings(read: EnvReader, url: str, *, var_dir: Path) -> dict[str, Any]:
    """Django setting names and values. url: of one of BROKER_SCHEMES."""
    if url.startswith(("redis:", "rediss:")):
        return {"CELERY_BROKER_TRANSPORT_OPTIONS": {"visibility_timeout": _REDIS_VISIBILITY_S}}
    if not url.startswith("filesystem:"):
        return {}
    queue_folder = read.private_folder(var_dir / "broker" / "queue")
    return {
        "CELERY_BROKER_TRANSPORT": "llmproject.filebroker:Transport",
        "CELERY_BROKER_TRANSPORT_OPTIONS": {
            "data_folder_in": str(queue_folder),
            "data_folder_out": str(queue_folder),
            "control_folder": str(read.private_folder(var_dir / "broker" / "control")),
        },
        # The processes of a pool would share a lock here: one that is killed while holding it would stop all of them.
        "CELERY_WORKER_POOL": "threads",
    }
