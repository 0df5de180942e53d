"""Whose window an end user's call uses, by how many their key has named."""

from __future__ import annotations

from datetime import UTC, datetime

from llm.limits.end_user_windows import EndUserNeed, FoundEndUser, choose_labels

NOON = datetime(2026, 11, 26, 12, tzinfo=UTC)
NEW, KNOWN = FoundEndUser(has_own=False, named=1), FoundEndUser(has_own=True, named=1)


def need(end_user: str, *, limit_id: int = 1, key_id: int = 7) -> EndUserNeed:
    return EndUserNeed(limit_id, NOON, key_id, end_user)


def test_a_key_names_as_many_as_it_may_and_the_others_share() -> None:
    found = {need("a"): NEW, need("b"): NEW, need("c"): KNOWN, need(""): NEW}
    assert choose_labels(list(found), found, limit=2) == {
        need("a"): "a",
        need("b"): "*7",
        need("c"): "c",
        need(""): "-",
    }


def test_each_limit_and_each_key_counts_for_itself() -> None:
    needs = [need(who, limit_id=limit_id, key_id=key_id) for limit_id in (1, 2) for key_id in (7, 8) for who in "ab"]
    labels = choose_labels(needs, dict.fromkeys(needs, NEW), limit=2)
    assert [labels[each] for each in needs] == ["a", "*7", "a", "*8"] * 2
