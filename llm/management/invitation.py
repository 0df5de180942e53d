"""An example of a first call, as printed by `bootstrap` and `up`."""

from __future__ import annotations

import json

from django.conf import settings

EVERY_INTERFACE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104


def reachable_host() -> str:
    """The address at which this machine reaches the web server."""
    return EVERY_INTERFACE.get(settings.WEB_HOST, settings.WEB_HOST).strip("[]")


def base_url() -> str:
    host = reachable_host()
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.WEB_PORT}"


def curl_line(key: str) -> str:
    """key: empty if its secret is no longer known."""
    body = {
        "model": settings.LLM_DEFAULT_MODEL or "NAME-OF-A-MODEL",
        "messages": [{"role": "user", "content": "Hello"}],
    }
    return (
        f"curl {base_url()}/v1/chat/completions -H 'Authorization: Bearer {key or 'YOUR-KEY'}' "
        f"-H 'Content-Type: application/json' -d '{json.dumps(body)}'"
    )


def ready_text(key: str) -> str:
    return f"\nReady: {base_url()}\n\n{curl_line(key)}\n"
