"""How we use the database: durable, with a bound on every wait."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmproject.env import EnvReader

# recursive_triggers: without it INSERT OR REPLACE deletes a row without firing the trigger that forbids that.
SQLITE_START = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA recursive_triggers = ON"
SQLITE_BUSY_SECONDS = 5
POSTGRESQL_ENGINE = "llmproject.postgresql"


_WHO = ("USER", "PASSWORD", "HOST", "PORT")


def owner_settings(read: EnvReader, database: Mapping[str, Any]) -> dict[str, Any]:
    """LLM_DATABASE_OWNER: the role that migrates the same database; empty if it is the only role."""
    owner = read.database("DATABASE_OWNER_URL")
    # Ours is an engine of its own, so engine names aren't compared.
    is_same = database["ENGINE"] == POSTGRESQL_ENGINE and owner.get("NAME") == database["NAME"]
    if owner and not (is_same and owner["ENGINE"].endswith("postgresql")):
        read.problems.append("DATABASE_OWNER_URL must name the database of DATABASE_URL, with another user.")
        return {}
    return {name: owner[name] for name in _WHO if name in owner}


def database_settings(
    read: EnvReader, *, base_dir: Path, default_path: Path, statement_timeout_ms: int, lock_timeout_ms: int
) -> dict[str, Any]:
    """DATABASES["default"].

    base_dir: where a relative SQLite path starts; default_path: the SQLite file if no database is named; timeouts,
    which only PostgreSQL has: 0 leaves them to the server.
    """
    config = read.database("DATABASE_URL") or {"ENGINE": "django.db.backends.sqlite3", "NAME": str(default_path)}
    if config["ENGINE"].endswith("sqlite3"):
        _describe_sqlite(config, read, base_dir)
    else:
        _describe_postgres(config, statement_timeout_ms, lock_timeout_ms)
    config.update(_pages_settings(read, config))
    return config


def _describe_sqlite(config: dict[str, Any], read: EnvReader, base_dir: Path) -> None:
    if config["NAME"] != ":memory:":
        path = base_dir / config["NAME"]
        read.private_folder(path.parent)
        config["NAME"] = str(path)
    # IMMEDIATE: a transaction that starts by reading fails at once if it later needs the lock, instead of waiting for
    # it.
    config["OPTIONS"] = {"transaction_mode": "IMMEDIATE", "timeout": SQLITE_BUSY_SECONDS, "init_command": SQLITE_START}


def _describe_postgres(config: dict[str, Any], statement_timeout_ms: int, lock_timeout_ms: int) -> None:
    config["ENGINE"] = POSTGRESQL_ENGINE
    # Under ASGI each request has its own thread, so a persistent connection would be useless. Long-lived threads keep
    # theirs themselves: the books' writer, and those of llm.db.reader_threads.
    config["CONN_MAX_AGE"] = 0
    config["CONN_HEALTH_CHECKS"] = True
    options: dict[str, Any] = {
        "application_name": "llm-gateway",
        "connect_timeout": 3,
        "keepalives": 1,
        "keepalives_idle": 30,
        "keepalives_interval": 10,
        "keepalives_count": 3,
        "tcp_user_timeout": 10_000,
    }
    limits = {"statement_timeout": statement_timeout_ms, "lock_timeout": lock_timeout_ms}
    if flags := " ".join(f"-c {name}={value}" for name, value in limits.items() if value):
        options["options"] = flags
    config["OPTIONS"] = {**options, **config.get("OPTIONS", {})}


def _pages_settings(read: EnvReader, config: dict[str, Any]) -> dict[str, Any]:
    """PAGES: the login for requests that Django serves. Only the role may differ."""
    pages = read.database("DATABASE_PAGES_URL")
    if not pages:
        return {}
    if any(pages.get(part) != config.get(part) for part in ("HOST", "PORT", "NAME")) or not pages.get("USER"):
        read.problems.append(
            "DATABASE_PAGES_URL must be DATABASE_URL, a PostgreSQL database, with another user and password."
        )
        return {}
    return {"PAGES": {"user": pages["USER"], "password": pages.get("PASSWORD", "")}}
