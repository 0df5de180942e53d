"""JSON bodies of the management API, bounded in values before they are parsed."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

from django.conf import settings
from rest_framework.exceptions import APIException, ParseError
from rest_framework.parsers import JSONParser

from llm.api.body import too_large
from llm.dialects.json_size import count_values
from llm.errors import InvalidRequest


class TooLarge(APIException):
    status_code = 413
    default_code = "request_too_large"


class BoundedJSONParser(JSONParser):
    """Two bytes may make an object, which takes a parser many times as much memory: see `llm.dialects.json_size`."""

    def parse(
        self, stream: Any, media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        raw = stream.read(settings.DATA_UPLOAD_MAX_MEMORY_SIZE + 1)
        if len(raw) > settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
            raise TooLarge(too_large(settings.DATA_UPLOAD_MAX_MEMORY_SIZE).message)
        try:
            count_values(raw)
        except InvalidRequest as error:
            raise ParseError(error.message) from error
        parsed: dict[str, Any] = super().parse(io.BytesIO(raw), media_type, parser_context)
        _refuse_repeated_members(raw)
        return parsed


def _refuse_repeated_members(raw: bytes) -> None:
    """Refuses duplicate member names, of which a parser silently takes the last. raw: JSON in UTF-8."""

    def members(pairs: list[tuple[str, Any]]) -> None:
        names = [name for name, _ in pairs]
        if repeated := next((name for name in names if names.count(name) > 1), None):
            raise ParseError(f"JSON parse error - the member “{repeated[:50]}” appears more than once.")

    json.loads(raw, object_pairs_hook=members)
