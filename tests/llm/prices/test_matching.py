from typing import Any

import pytest

from llm.prices.matching import compile_match, names_listed_in, pattern_clause


@pytest.mark.slow
@pytest.mark.parametrize(
    ("clause", "name", "fits"),
    [
        ({"equals": "GPT-4o"}, "gpt-4o", True),
        ({"equals": "gpt-4o"}, "gpt-4o-mini", False),
        ({"starts_with": "claude-3"}, "claude-3-opus", True),
        ({"ends_with": "-latest"}, "gpt-latest", True),
        ({"contains": "sonnet"}, "claude-sonnet-5", True),
        ({"regex": r"^claude-opus-5-\d{8}$"}, "claude-opus-5-20261001", True),
        ({"regex": r"^claude-opus-5-\d{8}$"}, "claude-opus-5-2026", False),
        ({"or": [{"equals": "a"}, {"equals": "b"}]}, "b", True),
        ({"and": [{"starts_with": "a"}, {"ends_with": "z"}]}, "az", True),
        ({"and": [{"starts_with": "a"}, {"ends_with": "z"}]}, "ab", False),
    ],
)
def test_clauses_fit_names(clause: dict[str, Any], name: str, fits: bool) -> None:
    assert compile_match(clause)(name) is fits


@pytest.mark.parametrize("clause", [{}, {"equals": "a", "regex": "b"}, {"like": "a"}, {"equals": 1}, {"regex": "("}])
def test_what_is_no_clause_is_refused(clause: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"match clause|takes a string|not a valid regular expression"):
        compile_match(clause)


def test_names_are_listed_by_equality_alone() -> None:
    clause = {"or": [{"equals": "GPT-4o"}, {"starts_with": "gpt-4o-2024"}, {"or": [{"equals": "b"}]}]}
    assert names_listed_in(clause) == ["gpt-4o", "b"]


@pytest.mark.parametrize(
    ("pattern", "fitting", "others"),
    [
        (
            "ft:GPT-4.1-*",
            ["ft:gpt-4.1-2025-04-14:acme::id2", "ft:gpt-4.1-"],
            ["ft:gpt-4.1", "x-ft:gpt-4.1-2", "ft:gpt-4x1-2"],
        ),
        ("*:free", ["meta/llama:free", ":free"], ["meta/llama:free-2", "meta/llama"]),
        ("ab*ba", ["abba", "abcba"], ["aba", "xabba", "abba\n"]),
        ("*", ["", "anything"], []),
    ],
)
def test_a_pattern_of_staffs_stands_for_names(pattern: str, fitting: list[str], others: list[str]) -> None:
    matches = compile_match(pattern_clause(pattern))
    assert [matches(name) for name in (*fitting, *others)] == [True] * len(fitting) + [False] * len(others)
