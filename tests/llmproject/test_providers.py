"""What LLM_PROVIDERS and the variables of its instances are read as, and which sentence each mistake gets."""

from __future__ import annotations

import pytest

from llmproject.env import EnvReader
from llmproject.providers import InstanceSettings, read_instances


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> EnvReader:
    for name in ("LLM_PROVIDERS", "LLM_PROVIDER"):
        monkeypatch.delenv(name, raising=False)
    return EnvReader()


def set_all(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    for name, value in values.items():
        monkeypatch.setenv(name, value)


def test_without_the_setting_there_are_none(read: EnvReader) -> None:
    assert (read_instances(read), read.problems) == ((), [])


def test_each_instance_is_read_with_its_variables(read: EnvReader, monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(
        monkeypatch,
        LLM_PROVIDERS="main=openai, claude = anthropic,local=openai_compatible",
        LLM_PROVIDER_MAIN_API_KEYS="sk-a,sk-b",
        LLM_PROVIDER_MAIN_KEY_WEIGHTS="3,1",
        LLM_PROVIDER_CLAUDE_API_KEY="sk-ant",
        LLM_PROVIDER_CLAUDE_DISCONNECT_POLICY="cancel",
        LLM_PROVIDER_CLAUDE_MAX_TOKENS="900",
        LLM_PROVIDER_LOCAL_BASE_URL="http://localhost:11434/v1/",
        LLM_PROVIDER_LOCAL_DIALECTS="chat,responses",
        LLM_PROVIDER_LOCAL_DEVELOPER_ROLE="system",
        LLM_PROVIDER_LOCAL_BOOKED_AS="local",
    )
    assert read_instances(read) == (
        InstanceSettings("main", "openai", api_keys=("sk-a", "sk-b"), weights=(3, 1)),
        InstanceSettings(
            "claude", "anthropic", api_keys=("sk-ant",), weights=(1,), max_tokens=900, disconnect_policy="cancel"
        ),
        InstanceSettings(
            "local",
            "openai_compatible",
            base_url="http://localhost:11434/v1",
            dialects=("chat", "responses"),
            developer_role="system",
            booked_as="local",
        ),
    )
    assert read.problems == []
    assert {"LLM_PROVIDER_MAIN_API_KEY", "LLM_PROVIDER_LOCAL_KEY_WEIGHTS"} <= read.known


LIST = "LLM_PROVIDERS must be a list of name=provider, such as main=openai,claude=anthropic, not "


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"LLM_PROVIDERS": "main"}, f'{LIST}"main"; '),
        ({"LLM_PROVIDERS": "main="}, f'{LIST}"main="; '),
        ({"LLM_PROVIDERS": "Main=openai"}, f'{LIST}"Main=openai"; '),
        ({"LLM_PROVIDERS": "my_own=openai"}, f'{LIST}"my_own=openai"; '),
        ({"LLM_PROVIDERS": "1st=openai"}, f'{LIST}"1st=openai"; '),
        ({"LLM_PROVIDERS": "main=openai,main=echo"}, 'LLM_PROVIDERS contains the name "main" twice; '),
        (
            {"LLM_PROVIDERS": "main=openai", "LLM_PROVIDER_MAIN_API_KEY": "a", "LLM_PROVIDER_MAIN_API_KEYS": "b"},
            "Both LLM_PROVIDER_MAIN_API_KEY and LLM_PROVIDER_MAIN_API_KEYS are set; ",
        ),
        (
            {"LLM_PROVIDERS": "main=openai", "LLM_PROVIDER_MAIN_API_KEY": "sk-a,sk-b"},
            "LLM_PROVIDER_MAIN_API_KEY contains a comma; several keys belong in LLM_PROVIDER_MAIN_API_KEYS.",
        ),
        (
            {"LLM_PROVIDERS": "main=openai", "LLM_PROVIDER_MAIN_API_KEY": "sk-schlüssel"},
            "LLM_PROVIDER_MAIN_API_KEY must be of visible ASCII characters, ",
        ),
        (
            {"LLM_PROVIDERS": "main=openai", "LLM_PROVIDER_MAIN_API_KEYS": "sk-a,sk-\x7fb"},
            "LLM_PROVIDER_MAIN_API_KEYS must be of visible ASCII characters, ",
        ),
        (
            {"LLM_PROVIDERS": "main=openai", "LLM_PROVIDER_MAIN_API_KEYS": "sk-same,sk-same"},
            "LLM_PROVIDER_MAIN_API_KEYS contains a key twice; ",
        ),
        (
            {
                "LLM_PROVIDERS": "main=openai",
                "LLM_PROVIDER_MAIN_API_KEYS": "sk-a,sk-b",
                "LLM_PROVIDER_MAIN_KEY_WEIGHTS": "1",
            },
            "LLM_PROVIDER_MAIN_KEY_WEIGHTS must have one weight for each key of LLM_PROVIDER_MAIN_API_KEYS, ",
        ),
        (
            {
                "LLM_PROVIDERS": "main=openai",
                "LLM_PROVIDER_MAIN_API_KEYS": "sk-a,sk-b",
                "LLM_PROVIDER_MAIN_KEY_WEIGHTS": "0,0",
            },
            "LLM_PROVIDER_MAIN_KEY_WEIGHTS must have one weight for each key of LLM_PROVIDER_MAIN_API_KEYS, ",
        ),
        (
            {
                "LLM_PROVIDERS": "main=openai",
                "LLM_PROVIDER_MAIN_API_KEY": "a",
                "LLM_PROVIDER_MAIN_KEY_WEIGHTS": "-1",
            },
            "LLM_PROVIDER_MAIN_KEY_WEIGHTS must be whole numbers from 0 to 1000, separated by commas, not ",
        ),
        (
            {"LLM_PROVIDERS": "main=openai", "LLM_PROVIDER_MAIN_DIALECTS": "chat,latin"},
            "LLM_PROVIDER_MAIN_DIALECTS must be a list of chat, completions, embeddings, responses, ",
        ),
        (
            {"LLM_PROVIDERS": "main=openai", "LLM_PROVIDER_MAIN_BASE_URL": "localhost"},
            "LLM_PROVIDER_MAIN_BASE_URL must be a URL like http://host:port/path ",
        ),
        (
            {"LLM_PROVIDERS": "main=openai", "LLM_PROVIDER_MAIN_DISCONNECT_POLICY": "wait"},
            "LLM_PROVIDER_MAIN_DISCONNECT_POLICY must be drain or cancel, ",
        ),
    ],
)
def test_a_mistake_is_one_sentence_that_names_its_variable(
    read: EnvReader, monkeypatch: pytest.MonkeyPatch, values: dict[str, str], sentence: str
) -> None:
    set_all(monkeypatch, **values)
    read_instances(read)
    assert [problem.startswith(sentence) for problem in read.problems] == [True], read.problems
    assert not any("sk-" in problem for problem in read.problems)


def test_variables_of_an_instance_that_isnt_named_are_misspelled(
    read: EnvReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_all(monkeypatch, LLM_PROVIDERS="claude=anthropic", LLM_PROVIDER_CLAUD_API_KEY="sk-ant")
    read_instances(read)
    read.check_names()
    [problem] = [problem for problem in read.problems if "CLAUD_API" in problem]
    assert "did you mean LLM_PROVIDER_CLAUDE_API_KEY?" in problem
