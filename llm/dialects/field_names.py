"""What a caller calls the field that a provider refuses.

Providers of another dialect name fields as chat completions do, which is how a translated request reaches them, or as
our own refusals name them. The caller has sent something else, and looks for that.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from llm.errors import UpstreamRejected

Names = Sequence[tuple[str, str]]
"""(chat's path, the caller's path), the longer ones first. The rest of a path stays."""

_QUOTED = re.compile(r"'([^']{1,200})'")
_FUNCTION = re.compile(r"tools\[(\d+)\]\.function(?=\.|$)")


def renamed(param: str, names: Names) -> str:
    for chats, callers in names:
        if param == chats or param.startswith((f"{chats}.", f"{chats}[")):
            return callers + param[len(chats) :]
    return param


def without_place(param: str, name: str) -> str:
    """`messages[3].content` as `name` alone: translated messages don't have the places of the caller's."""
    return name if param == "messages" or param.startswith("messages[") else param


def renamed_tool(param: str, place_of: Callable[[int], str]) -> str:
    """place_of: the path of the tool with that index, as the caller has sent it."""
    return _FUNCTION.sub(lambda found: place_of(int(found.group(1))), param, count=1)


def rename_field(refusal: UpstreamRejected, own_name: Callable[[str], str]) -> None:
    """In the parameter, and where the message quotes it or what it is in."""
    if (param := refusal.param) is None:
        return

    def renamed_in_text(quoted: re.Match[str]) -> str:
        path = quoted.group(1)
        return f"'{own_name(path)}'" if param == path or param.startswith((f"{path}.", f"{path}[")) else quoted.group()

    refusal.message = _QUOTED.sub(renamed_in_text, refusal.message)
    refusal.param = own_name(param)
