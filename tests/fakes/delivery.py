"""Puts a plan on the socket at the script's pace, and breaks it where the script says so."""

import asyncio
import socket
import struct
from dataclasses import replace

from aiohttp import web

from tests.fakes.ledger import Counts, Ledger, OpenCall
from tests.fakes.plan import Plan
from tests.fakes.scripts import Script

COMMENT = b": keep-alive\n\n"
SLOWEST_COMMENT_S = 0.01
LOOK_AGAIN_S = 0.2
# A reset throws away what the peer hasn't read yet, so it gets this long to read the events before the cut.
READ_BEFORE_RESET_S = 0.01
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class _CoalescedResponse(web.StreamResponse):
    """Its head leaves with the first bytes of its body, in one write."""

    _send_headers_immediately = False


class Delivery:
    """One reply on its way. `call` is kept up to date, whatever happens in between."""

    def __init__(
        self, request: web.Request, plan: Plan, script: Script, *, call: OpenCall, ledger: Ledger, stop: asyncio.Event
    ) -> None:
        self._request = request
        self._plan = plan
        self._script = script
        self._call = call
        self._ledger = ledger
        self._stop = stop
        self._parts_sent = 0

    async def run(self) -> web.StreamResponse:
        """Raises ConnectionError or CancelledError when the peer leaves before the end."""
        try:
            return await self._run()
        finally:
            self._note_bill()

    async def _run(self) -> web.StreamResponse:
        script, response = self._script, self._response()
        await _pause(script.header_delay_s)
        if script.hangs_before_headers:
            return await self._hang(response)
        if script.hangs_up:
            return self._drop(response)
        self._call.status = self._plan.status
        await response.prepare(self._request)
        await _pause(script.body_delay_s)
        while self._ledger.most_open < script.waits_for_calls:  # noqa: ASYNC110  # the ledger belongs to all threads
            await asyncio.sleep(LOOK_AGAIN_S)
        await self._send_parts(response)
        if script.cut_after_events is not None:
            return await self._cut(response)
        if script.hang_after_events is not None:
            return await self._hang(response)
        if script.comments_after_events is not None and self._plan.is_stream:
            return await self._send_comments(response)
        self._ledger.mark_ending(self._call)
        await response.write_eof()
        self._call.finished = True
        return response

    def _response(self) -> web.StreamResponse:
        if self._plan.is_stream or self._script.body_delay_s:
            response = web.StreamResponse(status=self._plan.status, headers=self._plan.headers)
        else:
            response = _CoalescedResponse(status=self._plan.status, headers=self._plan.headers)
        if not self._plan.is_stream:
            response.content_length = sum(map(len, self._plan.parts))
        return response

    async def _send_parts(self, response: web.StreamResponse) -> None:
        parts, breaks_off = self._plan.parts, self._breaks_off_after()
        last = min(breaks_off, len(parts)) - 1
        for index in range(last + 1):
            if index == len(parts) - 1 and not self._is_endless():
                self._ledger.mark_ending(self._call)
            await self._write(response, parts[index])
            self._parts_sent = index + 1
            if index < last:
                await asyncio.sleep(self._script.event_delay_s)

    def _breaks_off_after(self) -> int:
        """How many parts go out before a cut or a hang; more than there are when nothing breaks off."""
        script = self._script
        after = script.hang_after_events if script.cut_after_events is None else script.cut_after_events
        if after is None:
            return len(self._plan.parts)
        return after if self._plan.is_stream else 1

    def _is_endless(self) -> bool:
        script = self._script
        return not (script.cut_after_events is script.hang_after_events is script.comments_after_events is None)

    async def _write(self, response: web.StreamResponse, part: bytes) -> None:
        if not self._script.writes_single_bytes:
            await response.write(part)
            self._call.bytes_sent += len(part)
            return
        for start in range(len(part)):
            await response.write(part[start : start + 1])
            self._call.bytes_sent += 1
            await asyncio.sleep(0)

    async def _cut(self, response: web.StreamResponse) -> web.StreamResponse:
        parts = self._plan.parts
        if self._script.cuts_inside_event and self._parts_sent < len(parts):
            whole = parts[self._parts_sent]
            await self._write(response, whole[: len(whole) // 2])
        if self._script.cut_style == "rst":
            await asyncio.sleep(READ_BEFORE_RESET_S)
        return self._drop(response)

    def _drop(self, response: web.StreamResponse) -> web.StreamResponse:
        self._ledger.mark_ending(self._call)
        transport = self._request.transport
        if transport is None:
            raise ConnectionResetError("the peer left before it was hung up on")
        if self._script.cut_style == "close":
            transport.close()
            return response
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        transport.abort()
        return response

    async def _hang(self, response: web.StreamResponse) -> web.StreamResponse:
        """Say nothing until the peer leaves (which cancels this) or the server stops."""
        await self._stop.wait()
        return self._drop(response)

    async def _send_comments(self, response: web.StreamResponse) -> web.StreamResponse:
        while not self._stop.is_set():
            await self._write(response, COMMENT)
            await asyncio.sleep(max(self._script.event_delay_s, SLOWEST_COMMENT_S))
        return self._drop(response)

    def _note_bill(self) -> None:
        plan, sent = self._plan, self._parts_sent
        has_sent_usage = plan.usage_part is not None and sent > plan.usage_part
        self._call.usage = plan.usage if has_sent_usage else None
        if not plan.is_stream or has_sent_usage:
            self._call.counts = plan.counts
        elif sent:
            self._call.counts = replace(plan.counts, completion_tokens=plan.completion_after[sent - 1])
        else:
            self._call.counts = _prompt_alone(plan.counts)


def _prompt_alone(counts: Counts) -> Counts:
    return replace(counts, completion_tokens=0, reasoning_tokens=0, audio_output_tokens=0)


async def _pause(seconds: float) -> None:
    """Unlike a sleep of 0, no detour through the loop when there is nothing to wait for."""
    if seconds:
        await asyncio.sleep(seconds)
