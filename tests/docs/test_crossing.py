"""docs/callers.md says what crosses between dialects as the translation does it now."""

from __future__ import annotations

from tests.docs.crossing import CALLERS, tables, with_tables


def test_the_tables_of_what_crosses_are_those_of_the_translation() -> None:
    text = CALLERS.read_text()
    assert text == with_tables(text), "Run `python -m tests.docs.crossing`, and read what has changed."


def test_each_fate_is_met() -> None:
    rows = set(tables())
    assert "| `temperature` | carried |" in rows
    assert "| `seed` | left out |" in rows
    assert "| `n` above 1 | refused |" in rows
