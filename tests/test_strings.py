"""What people read says it in the words of the field: docs/glossary.md."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.docs.pages import ROOT
from tests.strings import Sentence, collect

# All sentences are collected once: one process tests them.
pytestmark = pytest.mark.xdist_group("strings")

# Pattern -> what to write instead.
STUMBLES = {
    r"(?<!there )\b(?:is|are) no (?!longer\b|more\b)": "is not a ...",
    r"\bas it stands|\bstands? (?:in|on|here|there|beside|with|below)\b": "is, appears, is listed",
    r"\banew\b|\bmade new\b": "again, re-..., rebuild",
    r"\bnobody\b|\bsomebody\b|\beverybody\b|\banybody\b": "a noun, or no one, someone, everyone, anyone",
    r"\bwhoever\b|\bwhom\b": "a noun: users, staff",
    r"\bby now\b|\bof theirs\b|\bbe it\b": "leave it out",
    r"\breckon": "calculate",
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


def test_no_sentence_has_a_word_that_makes_one_stumble() -> None:
    sentences = collect()
    assert len(sentences) > 2000
    assert complaints(sentences) == []


@pytest.mark.parametrize(
    "expected",
    [
        ("llm/limits/refusals.py", "Try again in a moment."),
        ("llm/enums.py", "timed out"),
        ("llm/management/commands/set_limit.py", "An account's name, or a key's prefix."),
        ("llm/alerts/messages.py", "{} has used {} % of {}"),
        ("llm/models/limits.py", "The alert for this period has been queued."),
        ("templates/admin/billing/invoice/batch.html", "Recorded in the history of each."),
        (".env.example", "Sender address."),
    ],
    ids=lambda expected: expected[0],
)
def test_a_string_of_each_kind_is_found(expected: tuple[str, str]) -> None:
    assert expected in {(sentence.file, sentence.text) for sentence in collect()}


def test_the_log_sql_and_docstrings_are_left_out() -> None:
    texts = {sentence.text for sentence in collect()}
    assert not {text for text in texts if text.startswith(("SELECT ", "INSERT ", "books unavailable"))}
    assert (complaints.__doc__ or "") not in texts


@pytest.mark.processes
def test_the_list_is_written_for_reading() -> None:
    ran = subprocess.run([sys.executable, "-m", "tests.strings"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "\nllm/limits/refusals.py\n" in ran.stdout
