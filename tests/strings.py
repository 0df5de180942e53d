"""Every string a person can meet, in one file to be read from end to end: python -m tests.strings > strings.txt

Errors, labels, help texts, command output and mails are collected from the code without running it, those of scripts
too; templates and .env.example are stripped of their markup. Log events, SQL and names of things are left out.
`collect_documents` has the documents' paragraphs, which are read as documents.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ["llm", "billing", "llmproject"]
DOCUMENTS = ["README.md", "CONTRIBUTING.md", "Makefile", "docs/**/*.md", "deploy/*"]

_LABELS = {
    "description",
    "empty_value_display",
    "help",
    "help_text",
    "label",
    "metavar",
    "short_description",
    "summary",
    "title",
}
_LABELS |= {"verbose_name", "verbose_name_plural"}
# Texts of triggers are part of their definition: an upgrade would have to replace them for the words alone.
_LEFT_OUT = {"llm/db/triggers.py", "billing/triggers.py"}
_LOG_METHODS = {"debug", "info", "warning", "error", "exception", "critical"}
_PROSE = re.compile(r"[A-Za-z{}]\S* +\S*[a-z{}]|^[A-Z][a-z]+[.:]?$")
_SQL = re.compile(
    r"\b(SELECT|INSERT INTO|UPDATE|DELETE FROM|CREATE|DROP|ALTER|WHERE|VALUES|SET|RETURNING|CASE WHEN|ORDER BY)\b"
)
_MARKUP = re.compile(r"\{#.*?#\}|\{% comment .*?endcomment %\}|<(script|style)\b.*?</\1>|<!--.*?-->", re.DOTALL)
_ATTRIBUTES = re.compile(r'\b(?:title|alt|aria-label|placeholder|data-[a-z-]*text)="([^"]*[a-z][^"]*)"')
_BLOCK_ENDS = re.compile(
    r"</?(?:p|h\d|li|td|th|tr|div|dt|dd|ul|table|section|caption|label|button|option|summary|br)\b[^>]*>"
)
_TAGS = re.compile(r"\{%.*?%\}|<[^>]*>", re.DOTALL)
_VARIABLES = re.compile(r"\{\{.*?\}\}", re.DOTALL)
_SCRIPT_COMMENTS = re.compile(r"/\*.*?\*/|^\s*//.*?$", re.DOTALL | re.MULTILINE)
_SCRIPT_STRINGS = re.compile(r""""([^"\n]*)"|'([^'\n]*)'|`([^`]*)`""")
_SCRIPT_VARIABLES = re.compile(r"\$\{[^}]*\}")
_CODE_BLOCKS = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
# What stands in quotation marks, or as code, is mentioned: a glossary names the words that it advises against.
_MENTIONED = re.compile(r"“[^”]*”|`[^`\n]*`")
_COMMENT_MARKS = re.compile(r"^\s*(?:#|--)", re.MULTILINE)
_IN_TAGS = re.compile(r"""\{%[^%]*?["']([^"'%]* [^"'%]*)["'][^%]*%\}""")


@dataclass(frozen=True, slots=True)
class Sentence:
    """A string with the place it stands at; `{}` takes the place of what is filled in."""

    file: str
    line: int
    text: str


@cache
def collect() -> list[Sentence]:
    """All of them, by file and line."""
    found: list[Sentence] = []
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            if "migrations" not in path.parts and str(path.relative_to(ROOT)) not in _LEFT_OUT:
                found += _in_code(path)
    for path in sorted((ROOT / "templates").rglob("*.*")):
        found += _in_template(path)
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("static/**/*.js")):
            found += () if "vendor" in path.parts else _in_script(path)
    return found + list(_in_settings(ROOT / ".env.example"))


@cache
def collect_documents() -> list[Sentence]:
    """Paragraphs of all documents and of comments in what people run, without code and what is only mentioned."""
    return [sentence for pattern in DOCUMENTS for path in sorted(ROOT.glob(pattern)) for sentence in _in_document(path)]


def _in_code(path: Path) -> list[Sentence]:
    tree = ast.parse(path.read_text())
    labels = _labels(tree)
    found = []
    for node in _strings(tree, _not_for_people(tree)):
        text = " ".join(_TAGS.sub(" ", _text(node)).split())
        if id(node) in labels or (_PROSE.search(text) and not _SQL.search(text)):
            found.append(Sentence(str(path.relative_to(ROOT)), node.lineno, text))
    return sorted(
        (sentence for sentence in found if re.search("[A-Za-z]", sentence.text)), key=lambda found: found.line
    )


def _strings(node: ast.AST, skipped: set[int]) -> Iterator[ast.Constant | ast.JoinedStr]:
    if id(node) in skipped:
        return
    if isinstance(node, ast.JoinedStr):
        yield node
    elif isinstance(node, ast.Constant):
        if isinstance(node.value, str):
            yield node
        return
    for child in ast.iter_child_nodes(node):
        if not (isinstance(node, ast.JoinedStr) and isinstance(child, ast.Constant)):
            yield from _strings(child, skipped)


def _text(node: ast.Constant | ast.JoinedStr) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    return "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)


def _not_for_people(tree: ast.Module) -> set[int]:
    """Docstrings, annotations and what goes to the log."""
    skipped: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            skipped.add(id(node))
        elif isinstance(node, ast.AnnAssign):
            skipped.add(id(node.annotation))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _LOG_METHODS:
            skipped.add(id(node))
    return skipped


def _labels(tree: ast.Module) -> set[int]:
    """Strings that are shown however short they are: labels of choices and of fields, titles, help texts."""
    labels: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg in _LABELS:
            labels.add(id(node.value))
        elif isinstance(node, ast.ClassDef) and any("Choices" in ast.unparse(base) for base in node.bases):
            choices = (statement.value for statement in node.body if isinstance(statement, ast.Assign))
            labels |= {id(choice.elts[-1]) for choice in choices if isinstance(choice, ast.Tuple)}
    return labels


def _in_template(path: Path) -> list[Sentence]:
    name = str(path.relative_to(ROOT))
    markup = _MARKUP.sub(lambda match: "\n" * match[0].count("\n"), path.read_text())
    found = [
        Sentence(name, markup.count("\n", 0, match.start()) + 1, match[1])
        for pattern in (_ATTRIBUTES, _IN_TAGS)
        for match in pattern.finditer(markup)
    ]
    plain = _BLOCK_ENDS.sub(lambda match: "\0" + "\n" * match[0].count("\n"), markup)
    plain = _TAGS.sub(lambda match: "\n" * match[0].count("\n"), _VARIABLES.sub("{}", plain))
    line = 1
    for piece in plain.split("\0"):
        text = " ".join(piece.split())
        if re.search("[a-z]", text):
            found.append(Sentence(name, line + piece[: len(piece) - len(piece.lstrip())].count("\n"), text))
        line += piece.count("\n")
    return sorted(found, key=lambda sentence: sentence.line)


def _in_script(path: Path) -> Iterator[Sentence]:
    text = _SCRIPT_COMMENTS.sub(lambda match: "\n" * match[0].count("\n"), path.read_text())
    for match in _SCRIPT_STRINGS.finditer(text):
        words = _SCRIPT_VARIABLES.sub("{}", match[1] or match[2] or match[3] or "")
        if _PROSE.search(words):
            yield Sentence(str(path.relative_to(ROOT)), text.count("\n", 0, match.start()) + 1, words)


def _in_document(path: Path) -> Iterator[Sentence]:
    text = _CODE_BLOCKS.sub(lambda match: "\n" * match[0].count("\n"), path.read_text())
    if path.suffix != ".md":
        text = _COMMENT_MARKS.sub("", text)
    line = 1
    for paragraph in re.split(r"(\n\s*\n)", text):
        words = " ".join(_MENTIONED.sub("…", paragraph).split())
        if words:
            yield Sentence(str(path.relative_to(ROOT)), line, words)
        line += paragraph.count("\n")


def _in_settings(path: Path) -> Iterator[Sentence]:
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if line.startswith("#") and not re.match(r"# [A-Z_]+=", line):
            yield Sentence(path.name, number, line.lstrip("# "))


def main() -> None:
    file = ""
    for sentence in collect():
        if sentence.file != file:
            file = sentence.file
            sys.stdout.write(f"\n{file}\n")
        sys.stdout.write(f"{sentence.line:>6}  {sentence.text}\n")


if __name__ == "__main__":
    main()
