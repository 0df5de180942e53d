"""What people read says it in the words of the field: docs/glossary.md."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache

import pytest
from drf_spectacular.generators import SchemaGenerator

from llmproject.schema import classes_without_description
from tests.docs.pages import ROOT
from tests.strings import Sentence, collect, collect_documents

# All sentences are collected once: one process tests them.
pytestmark = pytest.mark.xdist_group("strings")

# Pattern -> what to write instead.
STUMBLES = {
    r"(?<!there )\b(?:is|are) no (?!longer\b|more\b)": "is not a ...",
    r"\b(?:is|are) of no\b": "has no ..., is neither ... nor ...",
    r"\bas it stands|\bstands? (?:in|on|here|there|beside|with|below)\b": "is, appears, is listed",
    r"\banew\b|\bmade new\b": "again, re-..., rebuild",
    r"\bnobody\b|\bsomebody\b|\beverybody\b|\banybody\b": "a noun, or no one, someone, everyone, anyone",
    r"\bwhoever\b|\bwhom\b": "a noun: users, staff",
    r"\bby now\b|\bof theirs\b|\bbe it\b": "leave it out",
    r"\breckon": "calculate",
    r"(?<!`)\brecomput": "recalculate",
    r"\bmend(?:s|ed)?\b": "fix, correct",
    r"\bunder way\b": "in flight (calls), in progress (jobs)",
    r"\brates? of exchange\b": "exchange rate",
    r"\bpast the gateway\b": "outside the gateway",
    r"\bin all\b(?!,? \w)|\bin all,": "in total; lifetime",
    r"\bwas given up\b|^given up": "failed",
    r"\bis told\b|\bare told\b|\bnot told\b|\btold at\b": "alert, notify, report",
    r"\bis due (?:here|there)\b": "Must be ...",
    r"\bmeanwhile\b": "in the meantime",
    r"\babsurd\b": "usage that can't be right",
    r"\bits process died\b|\bwith their process\b": "lost (gateway restarted)",
    r"\bfrom then on\b|\bfrom now on\b|\bthe next \w+ on\b": "after this; from the next call",
    r"\bless than nothing\b": "negative",
    r"\bwho (?:is|are) sent\b": "the recipient",
    r"\bblocks? the issue\b": "block issuing",
    r"\bLeave it\b": "Cancel",
    r"\btakes the tick away\b|\btake the tick away\b": "untick",
    r"\ban hour at most\b|\bat the most\b": "at most",
}


def complaints(sentences: list[Sentence]) -> list[str]:
    return [
        f"{sentence.file}:{sentence.line}: {sentence.text!r}: {better}"
        for sentence in sentences
        for pattern, better in STUMBLES.items()
        if re.search(pattern, sentence.text, re.IGNORECASE)
    ]


@cache
def described() -> list[Sentence]:
    """Every summary and description of the API's schema, with the path to it in place of a file."""
    schema = SchemaGenerator().get_schema(request=None, public=True)  # type: ignore[no-untyped-call]
    return list(_described_in(schema, "schema"))


def _described_in(node: object, place: str) -> Iterator[Sentence]:
    if isinstance(node, list):
        for number, each in enumerate(node):
            yield from _described_in(each, f"{place}/{number}")
    elif isinstance(node, dict):
        for name, each in node.items():
            if name in ("description", "summary") and isinstance(each, str):
                yield Sentence(f"{place}/{name}", 0, each)
            else:
                yield from _described_in(each, f"{place}/{name}")


def test_no_sentence_has_a_word_that_makes_one_stumble() -> None:
    sentences = collect()
    assert len(sentences) > 2000
    assert complaints(sentences) == []


def test_no_document_has_a_word_that_makes_one_stumble() -> None:
    documents = collect_documents()
    assert {"README.md", "Makefile", "docs/operations.md", "deploy/postgresql-roles.sql"} <= {
        sentence.file for sentence in documents
    }
    assert complaints(documents) == []


def test_no_description_of_the_api_has_a_word_that_makes_one_stumble() -> None:
    assert len(described()) > 250
    assert complaints(described()) == []


def test_docstrings_for_developers_are_not_published() -> None:
    docstrings = [inspect.getdoc(each) or "" for each in classes_without_description()]
    published = {sentence.text for sentence in described()}
    assert not [text for text in published if text and any(text in docstring for docstring in docstrings)]
    assert (
        "A call. Tokens, units, cost, how it was served and whether it is billable include its adjustments."
        in published
    )


@pytest.mark.parametrize(
    "expected",
    [
        ("llm/limits/refusals.py", "Try again in a moment."),
        ("llm/enums.py", "timed out"),
        ("llm/management/commands/set_limit.py", "An account's name, or a key's prefix."),
        ("llm/alerts/messages.py", "{} has used {} % of {}"),
        ("llm/models/limits.py", "The alert for this period has been queued."),
        ("templates/admin/billing/invoice/batch.html", "Unchanged"),
        (".env.example", "Sender address."),
        ("llm/static/llm/admin.js", "Press Ctrl+C"),
    ],
    ids=lambda expected: expected[0],
)
def test_a_string_of_each_kind_is_found(expected: tuple[str, str]) -> None:
    assert expected in {(sentence.file, sentence.text) for sentence in collect()}


def test_the_log_sql_and_docstrings_are_left_out() -> None:
    texts = {sentence.text for sentence in collect()}
    assert not {text for text in texts if text.startswith(("SELECT ", "INSERT ", "books unavailable"))}
    assert (complaints.__doc__ or "") not in texts


def test_words_that_a_document_only_mentions_are_left_out() -> None:
    (style,) = (sentence.text for sentence in collect_documents() if "Nouns for people" in sentence.text)
    assert "nobody" in (ROOT / "docs" / "glossary.md").read_text()
    assert "nobody" not in style


@pytest.mark.parametrize("text", ["This is of no use.", "What stands here", "Begins anew."])
def test_a_stumble_is_found(text: str) -> None:
    assert len(complaints([Sentence("page", 1, text)])) == 1


@pytest.mark.processes
def test_the_list_is_written_for_reading() -> None:
    ran = subprocess.run([sys.executable, "-m", "tests.strings"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "\nllm/limits/refusals.py\n" in ran.stdout
