"""`python -m llmproject.envfile`: writes `.env` with random secrets, unless there is one.

Must run before anything is configured, so it uses the standard library alone.
"""

from __future__ import annotations

import os
import re
import secrets
import sys
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent
SECRETS = ("SECRET_KEY", "LLM_KEY_PEPPER")
SECRET_BYTES = 48


def write_env_file(folder: Path = BASE_DIR) -> bool:
    """True when the file was written. It is complete or absent, never half written, and readable by its owner alone."""
    target = folder / ".env"
    if target.exists():
        return False
    text = (folder / ".env.example").read_text(encoding="utf-8")
    for name in SECRETS:
        text = re.sub(rf"(?m)^{name}=.*$", f"{name}={secrets.token_urlsafe(SECRET_BYTES)}", text)
    draft = folder / f".env.{os.getpid()}"
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    draft.replace(target)
    return True


if __name__ == "__main__" and write_env_file():
    sys.stdout.write("Wrote .env with new secrets. Back it up: without LLM_KEY_PEPPER no API key is recognised.\n")
