"""The end user that a request names, and the tags by which its caller groups calls.

In the body these are the provider's fields, which it validates: what isn't a name or tag to us is passed on and not
recorded. The header `x-llm-tags` is ours, so an invalid one is refused.
Sources, read 2026-11: openai 3.54 (`types/chat/completion_create_params.py`), anthropic 2.12
(`types/metadata_param.py`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import islice
from typing import Any

from llm.errors import InvalidRequest
from llm.types import (
    MAX_TAG_KEY_CHARACTERS,
    MAX_TAG_VALUE_CHARACTERS,
    MAX_TAGS,
    clean_text,
    read_end_user,
)

TAGS_HEADER = "x-llm-tags"

_USER_ID = "user_id"
"""In metadata it names a person, so it is an end user, who can be forgotten, and never a tag, which can't be."""

_TAG = re.compile(
    rf"([A-Za-z0-9_.-]{{1,{MAX_TAG_KEY_CHARACTERS}}})[ \t]*=[ \t]*([\x20-\x7e]{{1,{MAX_TAG_VALUE_CHARACTERS}}})"
)
_FORM = (
    f"'{TAGS_HEADER}' must be at most {MAX_TAGS} tags such as team=search,project=x: each key once, of up to "
    f"{MAX_TAG_KEY_CHARACTERS} letters, digits, '_', '-' and '.', each value of up to {MAX_TAG_VALUE_CHARACTERS} ASCII "
    "characters without commas."
)
_NOT_A_PERSON = (
    f"'{TAGS_HEADER}' must not contain '{_USER_ID}': it names a person, and tags can't be deleted. Name the end user "
    "in the body."
)


def openai_end_user(body: Mapping[str, Any]) -> str:
    """`safety_identifier`, else `user`, which it replaces, else `metadata.user_id`; "" if there is none."""
    return (
        read_end_user(body.get("safety_identifier"))
        or read_end_user(body.get("user"))
        or read_end_user(_metadata_user_id(body))
    )


def messages_end_user(body: Mapping[str, Any]) -> str:
    """`metadata.user_id`; "" if there is none."""
    return read_end_user(_metadata_user_id(body))


def metadata_tags(body: Mapping[str, Any]) -> dict[str, str]:
    """The first MAX_TAGS texts of OpenAI's `metadata`. Long ones, and values of other types, are omitted."""
    metadata = body.get("metadata")
    if not isinstance(metadata, dict):
        return {}
    tags: dict[str, str] = {}
    for name, value in metadata.items():
        tag = _read_tag(name, value)
        if tag is not None:
            tags.setdefault(*tag)
        if len(tags) == MAX_TAGS:
            break
    return tags


def header_tags(header: str) -> dict[str, str]:
    """The tags of `x-llm-tags`, none for an empty header. Raises InvalidRequest with the expected form."""
    tags: dict[str, str] = {}
    for part in header.split(",") if header.strip() else ():
        match = _TAG.fullmatch(part.strip())
        if match is None or match[1] in tags or len(tags) == MAX_TAGS:
            raise InvalidRequest(_FORM, param=TAGS_HEADER)
        if match[1] == _USER_ID:
            raise InvalidRequest(_NOT_A_PERSON, param=TAGS_HEADER)
        tags[match[1]] = match[2]
    return tags


def join_tags(header: Mapping[str, str], metadata: Mapping[str, str]) -> Mapping[str, str]:
    """All of the header's, and as many of the metadata's as there is room for."""
    return dict(islice({**header, **{key: metadata[key] for key in metadata if key not in header}}.items(), MAX_TAGS))


def _metadata_user_id(body: Mapping[str, Any]) -> Any:
    metadata = body.get("metadata")
    return metadata.get(_USER_ID) if isinstance(metadata, dict) else None


def _read_tag(name: str, value: Any) -> tuple[str, str] | None:
    if not isinstance(value, str):
        return None
    if len(name) > MAX_TAG_KEY_CHARACTERS or len(value) > MAX_TAG_VALUE_CHARACTERS:
        return None
    key = clean_text(name, limit=MAX_TAG_KEY_CHARACTERS)
    text = clean_text(value, limit=MAX_TAG_VALUE_CHARACTERS)
    return (key, text) if key and text and key != _USER_ID else None
