"""Values that can't be read leave their default and one sentence, never a traceback."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import environ
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproject.env import EnvReader


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment as far as the reader knows: empty, and thrown away after the test."""
    variables: dict[str, str] = {}
    monkeypatch.setattr(environ.Env, "ENVIRON", variables)
    return variables


Read = Callable[[EnvReader], Any]

EXAMPLE = "such as llama3*=8192,gpt-4o=16384"

READS: dict[str, tuple[Read, Any]] = {
    "text": (lambda read: read.text("NAME", "fallback"), "fallback"),
    "flag": (lambda read: read.flag("NAME", default=True), True),
    "whole": (lambda read: read.whole("NAME", 7, minimum=2, maximum=9), 7),
    "seconds": (lambda read: read.seconds("NAME", 1.5), 1.5),
    "choice": (lambda read: read.choice("NAME", ("red", "blue"), default="blue"), "blue"),
    "choices": (lambda read: read.choices("NAME", ("red", "blue"), default="blue"), ["blue"]),
    "choice_by_name": (lambda read: read.choice_by_name("NAME", ("red", "blue"), default="blue"), {"": "blue"}),
    "amount_by_pattern": (lambda read: read.amount_by_pattern("NAME"), {}),
    "names": (lambda read: read.names("NAME", "a,b"), ["a", "b"]),
    "url": (lambda read: read.url("NAME", "http://here"), "http://here"),
    "database": (lambda read: read.database("NAME"), {}),
}


@pytest.mark.parametrize("kind", READS)
@pytest.mark.parametrize("value", [None, "", "  "])
def test_an_empty_value_counts_as_not_set(variables: dict[str, str], kind: str, value: str | None) -> None:
    if value is not None:
        variables["NAME"] = value
    reader = EnvReader()
    read, default = READS[kind]
    assert (read(reader), reader.problems) == (default, [])


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("text", " spaces around ", "spaces around"),
        ("text", "$HOME", "$HOME"),
        ("flag", "Off", False),
        ("flag", "yes", True),
        ("whole", "2", 2),
        ("whole", "9", 9),
        ("seconds", "0.25", 0.25),
        ("choice", "red", "red"),
        ("choices", "Red, blue", ["red", "blue"]),
        ("choice_by_name", "red", {"": "red"}),
        ("choice_by_name", "red, sky=blue,rose =red", {"": "red", "sky": "blue", "rose": "red"}),
        ("amount_by_pattern", "Llama3*=8192, a=b=7", {"llama3*": 8192, "a=b": 7}),
        ("names", " one, ,two,", ["one", "two"]),
        ("url", "https://there:444/v1/", "https://there:444/v1"),
    ],
)
def test_a_right_value_is_read(variables: dict[str, str], kind: str, value: str, expected: object) -> None:
    variables["NAME"] = value
    reader = EnvReader()
    assert (READS[kind][0](reader), reader.problems) == (expected, [])


@pytest.mark.parametrize(
    ("kind", "value", "sentence"),
    [
        ("flag", "maybe", 'NAME must be true or false, not "maybe".'),
        ("whole", "two", 'NAME must be between 2 and 9, not "two".'),
        ("whole", "1", 'NAME must be between 2 and 9, not "1".'),
        ("whole", "10", 'NAME must be between 2 and 9, not "10".'),
        ("whole", "2.5", 'NAME must be between 2 and 9, not "2.5".'),
        ("seconds", "abc", 'NAME must be a number of seconds above 0, not "abc".'),
        ("seconds", "0", 'NAME must be a number of seconds above 0, not "0".'),
        ("seconds", "nan", 'NAME must be a number of seconds above 0, not "nan".'),
        ("seconds", "inf", 'NAME must be a number of seconds above 0, not "inf".'),
        ("choice", "green", 'NAME must be red or blue, not "green".'),
        ("choices", "red,green", 'NAME must be a list of red, blue, separated by commas, not "red,green".'),
        ("choice_by_name", "green", 'NAME must be red or blue, or such a list: red,name=blue, not "green".'),
        ("choice_by_name", "red,sky=", 'NAME must be red or blue, or such a list: red,name=blue, not "red,sky=".'),
        *(
            (
                "amount_by_pattern",
                value,
                f'NAME must be a list of names or patterns with a number above 0, {EXAMPLE}, not "{value}".',
            )
            for value in ("7", "=7", "a=", "a=0", "a=-1", "a=1.5", "a=1,A=2", "a=9999999999")
        ),
        ("choice_by_name", "=red", 'NAME must be red or blue, or such a list: red,name=blue, not "=red".'),
        ("url", "there", "NAME must be a URL like http://host:port/path or https://host:port/path."),
        ("url", "http://a:b@c:99999", "NAME must be a URL like http://host:port/path or https://host:port/path."),
        ("url", "ftp://there", "NAME must be a URL like http://host:port/path or https://host:port/path."),
        (
            "database",
            "mysql://me:secret@there/books",
            "NAME must be sqlite:///path or postgres://user:password@host:port/name.",
        ),
        (
            "database",
            "postgres://me:secret@there:port/books",
            "NAME must be sqlite:///path or postgres://user:password@host:port/name.",
        ),
    ],
)
def test_a_wrong_value_leaves_its_default_and_one_sentence(
    variables: dict[str, str], kind: str, value: str, sentence: str
) -> None:
    variables["NAME"] = value
    reader = EnvReader()
    read, default = READS[kind]
    assert (read(reader), reader.problems) == (default, [sentence])


def test_a_whole_number_without_a_maximum_names_its_minimum(variables: dict[str, str]) -> None:
    variables["NAME"] = "-1"
    reader = EnvReader()
    assert reader.whole("NAME", 3) == 3
    assert reader.problems == ['NAME must be a whole number of at least 0, not "-1".']


@given(kind=st.sampled_from(sorted(READS)), value=st.text())
def test_no_value_raises(kind: str, value: str) -> None:
    reader = EnvReader()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(environ.Env, "ENVIRON", {"NAME": value})
        READS[kind][0](reader)
    assert len(reader.problems) <= 1


# --- Databases --------------------------------------------------------------------------------------------------------


def test_a_postgres_url_is_described(variables: dict[str, str]) -> None:
    variables["NAME"] = "postgres://me:p%40ss@there:5433/books"
    config = EnvReader().database("NAME")
    names = ("ENGINE", "USER", "PASSWORD", "HOST", "PORT", "NAME")
    assert [config[name] for name in names] == [
        "django.db.backends.postgresql",
        "me",
        "p@ss",
        "there",
        5433,
        "books",
    ]


@pytest.mark.parametrize(
    ("url", "name"), [("sqlite:///books.db", "books.db"), ("sqlite:////srv/books.db", "/srv/books.db")]
)
def test_a_sqlite_url_names_a_file(variables: dict[str, str], url: str, name: str) -> None:
    variables["NAME"] = url
    config = EnvReader().database("NAME")
    assert (config["ENGINE"], config["NAME"]) == ("django.db.backends.sqlite3", name)


# --- Files and folders ------------------------------------------------------------------------------------------------


def load(folder: Path, text: str) -> list[str]:
    file = folder / ".env"
    file.write_text(text, encoding="utf-8")
    reader = EnvReader()
    reader.load_file(file)
    return reader.problems


def test_the_lines_of_a_file_are_added(variables: dict[str, str], tmp_path: Path) -> None:
    text = (
        "# a comment\n\nPLAIN=one two\nexport EXPORTED=yes\nEMPTY=\nCOMMENTED=three # a comment\n"
        "SINGLE='a # b'\nDOUBLE=\"a b\"\nWITH_EQUALS=a=b\n"
    )
    assert load(tmp_path, text) == []
    reader = EnvReader()
    names = ("PLAIN", "EXPORTED", "EMPTY", "COMMENTED", "SINGLE", "DOUBLE", "WITH_EQUALS")
    assert [reader.text(name) for name in names] == ["one two", "yes", "", "three", "a # b", "a b", "a=b"]


def test_the_environment_wins_over_the_file(variables: dict[str, str], tmp_path: Path) -> None:
    variables["NAME"] = "of the environment"
    assert load(tmp_path, "NAME=of the file\n") == []
    assert variables == {"NAME": "of the environment"}


def test_a_missing_file_is_fine(variables: dict[str, str], tmp_path: Path) -> None:
    reader = EnvReader()
    reader.load_file(tmp_path / ".env")
    assert (reader.problems, variables) == ([], {})


@pytest.mark.parametrize("line", ["NAME = value", "NAME", " NAME=value", "a-b=c"])
def test_a_line_that_sets_nothing_is_named_without_its_text(
    variables: dict[str, str], tmp_path: Path, line: str
) -> None:
    assert load(tmp_path, f"FIRST=1\n{line}\n") == [
        ".env, line 2, is not NAME=value; write it without spaces around =."
    ]
    assert variables == {"FIRST": "1"}


@pytest.mark.parametrize("line", ['NAME="a#b"', 'NAME="a" # a comment', 'export NAME="a # b"'])
def test_a_hash_after_a_double_quote_is_refused(variables: dict[str, str], tmp_path: Path, line: str) -> None:
    assert load(tmp_path, f"{line}\n") == [".env, line 1, has # after a double quote; use single quotes."]


def test_a_file_that_is_not_text_is_named(variables: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_bytes(b"NAME=\xff\xfe\n")
    reader = EnvReader()
    reader.load_file(file)
    assert reader.problems == [f"{file} can't be read (UnicodeDecodeError); make it a readable UTF-8 file."]
    assert variables == {}


def test_a_private_folder_is_for_its_owner_alone(tmp_path: Path) -> None:
    reader = EnvReader()
    folder = reader.private_folder(tmp_path / "new" / "folder")
    assert (folder.stat().st_mode & 0o777, reader.problems) == (0o700, [])


def test_a_folder_that_cannot_be_created_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    reader = EnvReader()
    reader.private_folder(tmp_path / "file" / "folder")
    assert reader.problems == [
        f"The folder {tmp_path}/file/folder can't be created (Not a directory); make its parent writable."
    ]
