"""Commands of the project, run as staff would run them, on the database that this process uses."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from django.db import connection

_ROOT = Path(__file__).resolve().parent.parent.parent
_TOLD_CHARACTERS = 3000


def run_commands(*commands: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """One after the other; what those had to say that failed. environment: a gateway's, whose proxy may be gone."""
    complaints = []
    for command in commands:
        done = subprocess.run(
            [sys.executable, "manage.py", *command],
            cwd=_ROOT,
            env={**os.environ, **environment, "DATABASE_URL": own_database_url()},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            complaints.append(f"manage.py {' '.join(command)}: {done.stdout[-_TOLD_CHARACTERS:]}")
    connection.close()
    return complaints


def own_database_url() -> str:
    """The database that this process uses."""
    config = connection.settings_dict
    if connection.vendor == "sqlite":
        return f"sqlite:///{config['NAME']}"
    password = f":{config['PASSWORD']}" if config["PASSWORD"] else ""
    return f"postgres://{config['USER']}{password}@{config['HOST']}:{config['PORT']}/{config['NAME']}"
