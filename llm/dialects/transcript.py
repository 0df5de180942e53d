"""The generated text of a stream, in bounded memory, in case it has to be counted."""

from __future__ import annotations

from collections.abc import Callable

from llm.dialects.json_size import is_readable_event
from llm.dialects.sse import read_event, split_events

# Raw blocks are kept unparsed as long as that is cheap: usually the upstream reports usage, and the text isn't needed.
MAX_RAW_BYTES = 64 * 1024
# Of an event; a longer one is more likely an image than text.
MAX_READ_TEXT_BYTES = 1024 * 1024
MAX_SAMPLE_BYTES = 16 * 1024
MAX_TEXT_CHARACTERS = 1024 * 1024


class Transcript:
    """text_of_event: the text in the data of one event."""

    def __init__(self, text_of_event: Callable[[bytes], str]) -> None:
        self._text_of_event = text_of_event
        self.dropped_characters = 0
        self._raw: list[bytes] = []
        self._raw_bytes = 0
        self._texts: list[str] = []
        self._characters = 0

    def add(self, block: bytes) -> None:
        self._raw.append(block)
        self._raw_bytes += len(block)
        if self._raw_bytes > MAX_RAW_BYTES:
            self._fold()

    def text(self) -> str:
        self._fold()
        return "".join(self._texts)

    def _fold(self) -> None:
        datas = [read_event(event).data for event in split_events(b"".join(self._raw))]
        text = "".join([self._text_of(data) for data in datas if data])
        self._raw = []
        self._raw_bytes = 0
        kept = text[: MAX_TEXT_CHARACTERS - self._characters]
        self.dropped_characters += len(text) - len(kept)
        self._characters += len(kept)
        if kept:
            self._texts.append(kept)

    def _text_of(self, data: bytes) -> str:
        """If an event would take too long to parse, its beginning stands for the rest."""
        if len(data) <= MAX_READ_TEXT_BYTES and is_readable_event(data):
            return self._text_of_event(data)
        self.dropped_characters += len(data) - MAX_SAMPLE_BYTES
        return data[:MAX_SAMPLE_BYTES].decode(errors="replace")
