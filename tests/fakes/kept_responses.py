"""Responses that the fake keeps, as OpenAI does: for the whole organisation, whoever of it asks."""

from __future__ import annotations

from typing import Any

from tests.fakes.ledger import JSON
from tests.fakes.wire import BadRequestError

COSTS = {"usage": {"input_tokens": 3, "cost": 0.25, "output_tokens": 4, "total_tokens": 7}, "cost_details": {"x": 1}}
"""What a proxy in front of it might say of its prices."""


class KeptResponses:
    """By their ids."""

    def __init__(self) -> None:
        self._requests: dict[str, JSON] = {}

    def keep(self, response_id: str, request: JSON) -> None:
        if request.get("store") is not False:
            self._requests[response_id] = request

    def require(self, response_id: Any) -> None:
        """Raises BadRequestError for one that isn't kept. None asks for none."""
        if response_id is not None and response_id not in self._requests:
            raise BadRequestError(f"Previous response with id '{response_id}' not found.")

    def answer(self, method: str, response_id: str, rest: str) -> tuple[int, JSON]:
        """Status and body."""
        request = self._requests.get(response_id)
        if request is None:
            return 404, _error(f"Response with id '{response_id}' not found.")
        if (method, rest) == ("GET", ""):
            whole = {"id": response_id, "object": "response", "model": request["model"], "output": [], **COSTS}
            return 200, {**whole, "tools": request.get("tools") or []}
        if (method, rest) == ("GET", "/input_items"):
            item = {"id": "msg_1", "type": "message", "role": "user", "content": request["input"]}
            return 200, {"object": "list", "data": [item], "has_more": False}
        if (method, rest) == ("DELETE", ""):
            del self._requests[response_id]
            return 200, {"id": response_id, "object": "response.deleted", "deleted": True}
        return 400, _error("Cannot cancel a synchronous response.")


def _error(message: str) -> JSON:
    return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None}}
