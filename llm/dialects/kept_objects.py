"""Objects stored at the provider that a request names: files, containers, conversations. Found by member names.

The provider knows one organisation: ours. Which of our accounts created such an object is unknown, so a request that
names one is refused. Responses are the exception, since the books know whose they are: docs/decisions/0032.

Sources, read 2026-11: openai 3.54 (`types/responses/`, `types/chat/`). OpenAI's guide says of `code_interpreter_call`
that the model may continue in its container ("Code Interpreter", "Auto mode"), so its `container_id` opens that
container. Google's chat completions accept `cached_content`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from llm.errors import InvalidRequest

_ANYWHERE = frozenset(
    (
        *("fileid", "fileids", "vectorstoreid", "vectorstoreids", "containerid", "skillid", "tunnelid"),
        *("conversationid", "continuationid", "cachedcontent"),
    )
)
"""Names in the form returned by `_folded`."""
_OUTERMOST = frozenset(("conversation", "threadid", "contextid"))
"""Names of a stored object only as a member of the request itself."""
_CONTAINER = "container"
_CALLERS_OBJECTS = frozenset(
    ("parameters", "schema", "input_schema", "output_schema", "headers", "attributes", "metadata")
)
"""Members whose own members are named by the caller."""
_SUSPECTS = re.compile(
    rb'"(?:file|vector|container|skill|tunnel|conversation|continuation|thread|context|cached)|\\u(?:00[4-7]|017f|212a)'
    rb"|\xc5\xbf|\xe2\x84\xaa",
    re.IGNORECASE,
)
"""Matches bodies that may name a stored object, even with letters written as escapes, or as the long s and the Kelvin
sign, which are s and k in another case. Most don't match, and aren't read.
"""
_FILES = frozenset(("fileid", "fileids"))


def refuse_kept_objects(raw: bytes, body: Mapping[str, Any]) -> None:
    """Raises InvalidRequest. raw: the bytes of `body`."""
    if _SUSPECTS.search(raw) is None:
        return
    for name, value in body.items():
        if value and _folded(name) in _OUTERMOST:
            refuse_kept(name)
    for path in _kept_members(body, ""):
        refuse_kept(path)


def kept_files(raw: bytes, body: Mapping[str, Any], *, ignored: frozenset[str]) -> Iterator[str]:
    """The paths of all members that name files. ignored: types of blocks that may name any."""
    return iter(()) if _SUSPECTS.search(raw) is None else _kept_members(body, "", names=_FILES, ignored=ignored)


def refuse_storage(body: Mapping[str, Any]) -> None:
    """Raises InvalidRequest where the provider is asked to store the request, of an account that doesn't allow it."""
    if body.get("store") is not None and body["store"] is not False:
        raise InvalidRequest(
            "This account does not allow providers to store requests and replies. Set 'store' to false.", param="store"
        )


def refuse_kept(param: str) -> NoReturn:
    raise InvalidRequest(
        f"'{param}' refers to something stored by the provider, and the gateway can't tell which account created it."
        " Send the content itself.",
        param=param,
    )


def _kept_members(
    value: Any, path: str, *, names: frozenset[str] = _ANYWHERE | {_CONTAINER}, ignored: frozenset[str] = frozenset()
) -> Iterator[str]:
    """Includes the paths of nested ones."""
    if isinstance(value, list):
        for index, each in enumerate(value):
            if isinstance(each, dict | list):
                yield from _kept_members(each, f"{path}[{index}]", names=names, ignored=ignored)
        return
    if ignored and isinstance(kind := value.get("type"), str) and kind in ignored:
        return
    for name, each in value.items():
        here = f"{path}.{name}" if path else name
        folded = _folded(name)
        if folded in names and (_names_container(each) if folded == _CONTAINER else each):
            yield here
        elif isinstance(each, dict | list) and name not in _CALLERS_OBJECTS:
            yield from _kept_members(each, here, names=names, ignored=ignored)


def _names_container(value: Any) -> bool:
    """An object describes a container to create, unless it has an id."""
    if isinstance(value, dict):
        return any(_folded(name) == "id" and each for name, each in value.items())
    return bool(value)


def _folded(name: str) -> str:
    """`fileId`, `FILE_ID` and `file-id` are the same name to a lenient server."""
    return name.replace("_", "").replace("-", "").casefold()
