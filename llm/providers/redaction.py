"""Our own key in whatever an upstream says: as it is, without its prefix, and in base64.

Base64 of a longer text that holds the key shows it in one of three alignments, of which only the characters that the
key alone decides are looked for. Other disguises (hex, reversed, spaced out) are not: an upstream that wants to give
our key away can't be kept from it, and those that only echo a header or a URL use these forms.
"""

from __future__ import annotations

import base64
import re
from functools import lru_cache

SHORTEST_SECRET = 16
"""What is shorter than any provider's key is a word (Ollama takes any as its key): striking it out would only maim."""

REDACTED = "[redacted]"

_PREFIX = re.compile(r"[A-Za-z0-9]{1,8}[-_]")
_MAX_PREFIXES = 3  # sk-ant-api03-
_STRUCK_OUT = REDACTED.encode()


class SecretForms:
    """The forms of one secret; of a secret that is only a word there are none.

    longest: bytes of the longest form.
    """

    def __init__(self, secret: str) -> None:
        plain = _without_prefixes(secret) if len(secret) >= SHORTEST_SECRET else []
        # Wherever a longer form stands, a form of the shortest part stands inside it.
        self._marks = tuple(form for text in plain[-1:] for form in (text.encode(), *_base64_of(text)))
        encoded = [form for text in (plain[:1] + plain[-1:]) for form in _base64_of(text)]
        self.forms = tuple(sorted({*(text.encode() for text in plain), *encoded}, key=len, reverse=True))
        self.longest = max(map(len, self.forms), default=0)
        self._pattern = re.compile(b"|".join(map(re.escape, self.forms)) or b"(?!)")
        self._characters = frozenset(b"".join(self.forms))
        self._first_characters = frozenset(form[0] for form in self.forms)

    def strike_out(self, data: bytes) -> bytes:
        if not any(mark in data for mark in self._marks):
            return data
        return self._pattern.sub(_STRUCK_OUT, data)

    def strike_out_of_text(self, text: str) -> str:
        if not self.forms:
            return text
        data = text.encode("utf-8", "surrogatepass")
        struck = self.strike_out(data)
        return text if struck is data else struck.decode("utf-8", "surrogatepass")

    def begin_of_unfinished(self, data: bytes) -> int:
        """Where a form begins whose end has not come yet; the length of data if there is none."""
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

    def are_partly_in(self, text: str, *, length: int = SHORTEST_SECRET) -> bool:
        """Whether the text holds that many characters of a form in a row: a column may have cut it."""
        data = text.encode("utf-8", "replace")
        return any(
            form[start : start + length] in data for form in self.forms for start in range(len(form) - length + 1)
        )


@lru_cache(maxsize=32)
def forms_of(secret: str) -> SecretForms:
    return SecretForms(secret)


def _without_prefixes(secret: str) -> list[str]:
    """The secret, then without `sk-`, `sk-ant-` and the like: never less than what still looks like a key."""
    found = [secret]
    while len(found) <= _MAX_PREFIXES and (prefix := _PREFIX.match(found[-1])):
        rest = found[-1][prefix.end() :]
        if len(rest) < SHORTEST_SECRET:
            break
        found.append(rest)
    return found


def _base64_of(text: str) -> list[bytes]:
    data = text.encode()
    return [
        encode(bytes(offset) + data)[-(-8 * offset // 6) : 8 * (offset + len(data)) // 6]
        for offset in range(3)
        for encode in (base64.b64encode, base64.urlsafe_b64encode)
    ]
