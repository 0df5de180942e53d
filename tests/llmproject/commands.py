"""`manage.py` in a process of its own, with nothing but the settings that a test names."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from django.conf import settings

ROOT: Path = settings.BASE_DIR
SECRET_KEY = "a secret of the test, long enough for what it is asked to protect"
PEPPER = "a pepper of the test"
SECRETS_KEY = "a key of the test that encrypts what is stored"
TIMEOUT_S = 120


def environment_of(folder: Path, **environment: str) -> dict[str, str]:
    """folder: where everything is written, the SQLite file included."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "LLM_ENV_FILE": "",
        "VAR_DIR": str(folder),
        "SECRET_KEY": SECRET_KEY,
        "LLM_KEY_PEPPER": PEPPER,
        "LLM_SECRETS_KEY": SECRETS_KEY,
        **environment,
    }


def python_command(*arguments: str) -> list[str]:
    return [sys.executable, *arguments]


def manage(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return run_python(folder, "manage.py", *arguments, **environment)


def run_python(
    folder: Path, *arguments: str, lines: Sequence[str] = (), **environment: str
) -> subprocess.CompletedProcess[str]:
    """lines: what it may read from its standard input."""
    return subprocess.run(
        python_command(*arguments),
        cwd=ROOT,
        env=environment_of(folder, **environment),
        input="\n".join(lines),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
