"""Who a request is for, in the words of each dialect; whatever else stands there names nobody and is no error."""

from __future__ import annotations

import random
from typing import Any

import orjson
import pytest

from llm.dialects.anthropic_messages.counting import COUNT_TOKENS
from llm.dialects.anthropic_messages.wire import ANTHROPIC_MESSAGES
from llm.dialects.base import WireFormat
from llm.dialects.end_users import header_tags, join_tags
from llm.dialects.native import NATIVE
from llm.dialects.openai_chat.wire import OPENAI_CHAT
from llm.dialects.openai_completions.wire import OPENAI_COMPLETIONS
from llm.dialects.openai_embeddings.wire import OPENAI_EMBEDDINGS
from llm.dialects.openai_responses.wire import OPENAI_RESPONSES
from llm.errors import InvalidRequest

OPENAIS = (NATIVE, OPENAI_CHAT, OPENAI_COMPLETIONS, OPENAI_EMBEDDINGS, OPENAI_RESPONSES)
ANTHROPICS = (ANTHROPIC_MESSAGES, COUNT_TOKENS)
PROMPT: dict[Any, dict[str, Any]] = {
    OPENAI_COMPLETIONS: {"prompt": "hello"},
    OPENAI_EMBEDDINGS: {"input": "hello"},
    OPENAI_RESPONSES: {"input": "hello"},
}
MESSAGES: dict[str, Any] = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 9}


def parse(wire: WireFormat, **fields: Any) -> tuple[str, dict[str, str]]:
    body = {"model": "m", **PROMPT.get(wire, MESSAGES), **fields}
    request = wire.parse(orjson.dumps(body))
    assert request.body == body
    return request.end_user, dict(request.tags)


@pytest.mark.parametrize("wire", OPENAIS, ids=lambda wire: type(wire).__name__)
def test_openais_fields_name_an_end_user_the_newer_one_first(wire: WireFormat) -> None:
    assert parse(wire) == ("", {})
    assert parse(wire, user="u1") == ("u1", {})
    assert parse(wire, user="u1", safety_identifier="s1") == ("s1", {})
    assert parse(wire, user="u1", safety_identifier="") == ("u1", {})
    assert parse(wire, user="u1", safety_identifier=7) == ("u1", {})
    assert parse(wire, user="u1", metadata={"user_id": "m1", "team": "search"}) == ("u1", {"team": "search"})
    assert parse(wire, metadata={"user_id": "m1"}) == ("m1", {})


@pytest.mark.parametrize("wire", ANTHROPICS, ids=lambda wire: type(wire).__name__)
def test_of_a_message_the_metadata_names_an_end_user_and_no_tags(wire: WireFormat) -> None:
    assert parse(wire) == ("", {})
    assert parse(wire, metadata={"user_id": "u1", "team": "search"}) == ("u1", {})
    assert parse(wire, user="u1", safety_identifier="s1") == ("", {})


@pytest.mark.parametrize("wire", OPENAIS, ids=lambda wire: type(wire).__name__)
def test_metadata_gives_eight_tags_of_short_texts(wire: WireFormat) -> None:
    metadata: dict[str, Any] = {"n": 1, "list": ["a"], "none": None, "empty": "", "k" * 65: "v", "long": "v" * 129}
    metadata |= {"k" * 64: "v" * 128, **{f"key{number}": "v" for number in range(9)}}
    assert parse(wire, metadata=metadata)[1] == {
        "k" * 64: "v" * 128,
        **{f"key{number}": "v" for number in range(7)},
    }


@pytest.mark.parametrize(
    ("given", "recorded"),
    [
        ("a" * 256, "a" * 256),
        ("a" * 257, ""),
        ("a\x00b\x1f\x7fc\u202e", "abc"),
        ("\x00\n", ""),
        ("   ", ""),
        ("Zoë 🦊", "Zoë 🦊"),
        *((value, "") for value in (None, 0, 1.5, True, [], ["u"], {}, {"id": "u"})),
    ],
)
def test_what_is_no_name_names_nobody(given: Any, recorded: str) -> None:
    assert parse(OPENAI_CHAT, user=given) == (recorded, {})
    assert parse(OPENAI_RESPONSES, safety_identifier=given) == (recorded, {})


DEVICE = f'"device_id":"{"d" * 64}"'
SESSION = '"session_id":"0a1b2c3d-0000-4000-8000-000000000000"'


@pytest.mark.parametrize(
    ("given", "recorded"),
    [
        (f'{{{DEVICE},"account_uuid":"a",{SESSION}}}', f'{{{DEVICE},"account_uuid":"a"}}'),
        (f'{{"team":"{"x" * 100}",{DEVICE},{SESSION}}}', f'{{"team":"{"x" * 100}",{DEVICE}}}'),
        (f"user_{'0f' * 32}_account__session_0a1b2c3d-0000-4000-8000-000000000000", f"user_{'0f' * 32}_account_"),
        ("user_0f_account_1-2_session_3", "user_0f_account_1-2"),
        # These are names like any other.
        ("user_anne_account_1_session_3", "user_anne_account_1_session_3"),
        (f"{{{SESSION}}}", f"{{{SESSION}}}"),
        ('{"session_id":null,"a":1}', '{"session_id":null,"a":1}'),
        (f'{{"a":{{}},{SESSION}}}', f'{{"a":{{}},{SESSION}}}'),
        (f"{{{SESSION}", f"{{{SESSION}"),
        ('["session_id"]', '["session_id"]'),
        ("in this session", "in this session"),
        (f'{{"a":{"[" * 120}{"]" * 120},"session":1}}', ""),
        (f'{{"a":"{"x" * 9000}",{SESSION}}}', ""),
    ],
)
def test_one_who_codes_is_the_same_end_user_in_each_session(given: str, recorded: str) -> None:
    assert parse(ANTHROPIC_MESSAGES, metadata={"user_id": given}) == (recorded, {})
    assert parse(OPENAI_CHAT, user=given) == (recorded, {})


def test_a_tag_is_cleaned_as_other_columns_are() -> None:
    metadata = {"te\x00am": "sea\x1brch", "\x00": "v", "k": "\x00", "user\x00_id": "u", "team": "another"}
    assert parse(OPENAI_CHAT, metadata=metadata) == ("", {"team": "search"})


def test_anything_at_all_may_stand_there() -> None:
    """Pass-through: what the fields hold is the provider's to judge."""
    chance = random.Random(7)
    atoms: list[Any] = [None, True, -1, 2**70, 1e300, "", "u", "\x00", "é" * 300, "a=b,c", [], {}, [[]], {"": ""}]
    for _ in range(300):
        metadata: Any = {chance.choice(("user_id", "", "k", "\x01", "é" * 70)): chance.choice(atoms) for _ in range(3)}
        fields = {
            name: chance.choice([*atoms, metadata]) for name in ("user", "safety_identifier") if chance.random() < 0.7
        }
        for wire in OPENAIS:
            body = {"model": "m", **PROMPT.get(wire, MESSAGES), **fields, "metadata": chance.choice([metadata, *atoms])}
            request = wire.parse(b"", body)
            assert len(request.end_user) <= 256
            assert len(request.tags) <= 8
            assert all(map(str.isprintable, (request.end_user, *request.tags, *request.tags.values())))


def test_a_header_gives_tags() -> None:
    assert header_tags("") == header_tags("  ") == {}
    assert header_tags("team=search,project=x") == {"team": "search", "project": "x"}
    assert header_tags(" team = two words , a.b-c_1=x=y ") == {"team": "two words", "a.b-c_1": "x=y"}
    assert len(header_tags(",".join(f"k{number}=v" for number in range(8)))) == 8
    assert header_tags(f"{'k' * 64}={'v' * 128}") == {"k" * 64: "v" * 128}


@pytest.mark.parametrize(
    "header",
    [
        *(
            "team",
            "=",
            "team=",
            "=search",
            "team=search,",
            ",",
            "a=1,,b=2",
            "a=1,a=2",
            "te am=x",
            "té=x",
            "a=é",
            "a=\x00",
        ),
        ",".join(f"k{number}=v" for number in range(9)),
        f"{'k' * 65}=v",
        f"k={'v' * 129}",
        '{"team": "search"}',
    ],
)
def test_a_malformed_header_is_refused_with_its_form(header: str) -> None:
    with pytest.raises(
        InvalidRequest, match="'x-llm-tags' must be at most 8 tags such as team=search,project=x"
    ) as raised:
        header_tags(header)
    assert raised.value.param == "x-llm-tags"


def test_a_person_is_no_tag_in_the_header_either() -> None:
    with pytest.raises(InvalidRequest, match="must not contain 'user_id'") as raised:
        header_tags("team=search,user_id=anne")
    assert raised.value.param == "x-llm-tags"
    assert header_tags("user_ids=many") == {"user_ids": "many"}


def test_tags_of_the_header_come_first() -> None:
    header, metadata = {"team": "search", "a": "1"}, {"team": "other", "b": "2"}
    assert join_tags(header, metadata) == {"team": "search", "a": "1", "b": "2"}
    many = {f"h{number}": "v" for number in range(7)}
    assert join_tags(many, {"b": "2", "c": "3"}) == {**many, "b": "2"}
