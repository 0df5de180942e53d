"""Our own key in an upstream's text: as it is, without its prefix, and in base64.

Base64 of a longer text that contains the key shows it in one of three alignments, of which only the characters
determined by the key alone are searched for. In a refusal's texts part of a form is removed too, from SHORTEST_SECRET
characters on: servers truncate what they echo, or split it over two fields. In replies, which are passed on as bytes,
only whole forms are searched for. Other disguises (hex, reversed, spaced out) aren't: an upstream that wants to leak
our key can't be stopped, and those that only echo a header or a URL use these forms. What merely looks like a key is
removed from refusals in `failures`.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

SHORTEST_SECRET = 16
"""Anything shorter than every provider's key is a word (Ollama accepts any as its key), whose removal garbles texts."""

REDACTED = "[redacted]"

_PREFIX = re.compile(r"[A-Za-z0-9]{1,8}[-_]")
_MAX_PREFIXES = 3  # sk-ant-api03-
_STRUCK_OUT = REDACTED.encode()


class TextForms:
    """Strikes parts of forms out of texts. runs: all pieces of SHORTEST_SECRET characters of all forms."""

    def __init__(self, runs: frozenset[str]) -> None:
        self.runs = runs

    def strike_out_of_text(self, text: str) -> str:
        """Also a part of a form, and where characters stand in it that nobody sees, or that are no part of any key."""
        if not self.runs or len(text) < SHORTEST_SECRET:
            return text
        places = [place for place, character in enumerate(text) if "!" <= character <= "~"]
        kept, position = [], 0
        for start, end in self._parts_in("".join([text[place] for place in places])):
            kept += [text[position : places[start]], REDACTED]
            position = places[end - 1] + 1
        return "".join([*kept, text[position:]])

    def are_partly_in(self, text: str) -> bool:
        """Whether it holds a part of a form: a column may have cut it."""
        return any(True for _part in self._parts_in(text))

    def _parts_in(self, text: str) -> Iterator[tuple[int, int]]:
        """Where parts of SHORTEST_SECRET characters or more begin and end."""
        begin, end = 0, 0
        for place in range(len(text) - SHORTEST_SECRET + 1):
            if text[place : place + SHORTEST_SECRET] not in self.runs:
                continue
            if place > end:
                if end:
                    yield begin, end
                begin = place
            end = place + SHORTEST_SECRET
        if end:
            yield begin, end


class SecretForms(TextForms):
    """The forms of one secret; of a secret that is only a word there are none.

    longest: bytes of the longest form.
    """

    def __init__(self, secret: str) -> None:
        plain = _without_prefixes(secret) if len(secret) >= SHORTEST_SECRET else []
        # Wherever a longer form occurs, so does a form of the shortest part.
        self._marks = tuple(form for text in plain[-1:] for form in (text.encode(), *_base64_of(text)))
        encoded = [form for text in (plain[:1] + plain[-1:]) for form in _base64_of(text)]
        self.forms = tuple(sorted({*(text.encode() for text in plain), *encoded}, key=len, reverse=True))
        self.longest = max(map(len, self.forms), default=0)
        self._pattern = re.compile(b"|".join(map(re.escape, self.forms)) or b"(?!)")
        super().__init__(frozenset(run for form in self.forms for run in _runs_of(form.decode())))
        self._characters = frozenset(b"".join(self.forms))
        self._first_characters = frozenset(form[0] for form in self.forms)

    def strike_out(self, data: bytes) -> bytes:
        if not any(mark in data for mark in self._marks):
            return data
        return self._pattern.sub(_STRUCK_OUT, data)

    def begin_of_unfinished(self, data: bytes) -> int:
        """Where a form begins that isn't complete yet; the length of data if there is none."""
        size = len(data)
        if not size or data[-1] not in self._characters:
            return size
        tail = data[-self.longest :]
        for start, character in enumerate(tail):
            if character not in self._first_characters:
                continue
            rest = tail[start:]
            if any(form.startswith(rest) for form in self.forms if len(form) > len(rest)):
                return size - len(rest)
        return size


def struck_out_of(value: Any, secrets: tuple[str, ...]) -> Any:
    """The value without any of the secrets in its texts; objects and lists are gone through."""
    if isinstance(value, str):
        return _forms_of_all(secrets).strike_out_of_text(value)
    if isinstance(value, list):
        return [struck_out_of(each, secrets) for each in value]
    if isinstance(value, Mapping):
        return {struck_out_of(name, secrets): struck_out_of(each, secrets) for name, each in value.items()}
    return value


def without_invisible(text: str) -> str:
    """Without control and other invisible characters; line breaks and tabs stay, unusual spaces become plain ones."""
    if text.isascii() and text.isprintable():
        return text
    seen = (" " if character.isspace() and character not in "\n\t" else character for character in text)
    return "".join(character for character in seen if character.isprintable() or character in "\n\t")


@lru_cache(maxsize=256)
def forms_of(secret: str) -> SecretForms:
    return SecretForms(secret)


@lru_cache(maxsize=8)
def _forms_of_all(secrets: tuple[str, ...]) -> TextForms:
    """A text is gone through once, however many keys there are."""
    return TextForms(frozenset(run for secret in secrets for run in forms_of(secret).runs))


def _without_prefixes(secret: str) -> list[str]:
    """The secret, then without `sk-`, `sk-ant-` and the like: never shorter than what still looks like a key."""
    found = [secret]
    while len(found) <= _MAX_PREFIXES and (prefix := _PREFIX.match(found[-1])):
        rest = found[-1][prefix.end() :]
        if len(rest) < SHORTEST_SECRET:
            break
        found.append(rest)
    return found


def _runs_of(form: str) -> Iterable[str]:
    return (form[start : start + SHORTEST_SECRET] for start in range(len(form) - SHORTEST_SECRET + 1))


def _base64_of(text: str) -> list[bytes]:
    data = text.encode()
    return [
        encode(bytes(offset) + data)[-(-8 * offset // 6) : 8 * (offset + len(data)) // 6]
        for offset in range(3)
        for encode in (base64.b64encode, base64.urlsafe_b64encode)
    ]
