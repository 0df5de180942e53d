"""The map of CONTRIBUTING.md leads somewhere."""

from __future__ import annotations

import re

from tests.docs.pages import ROOT, prose


def test_every_path_of_the_map_is_there() -> None:
    named = set(
        re.findall(
            r"`((?:llm|billing|llmproject|tests|templates|docs)/[\w./]+|[\w.]+\.(?:txt|toml|md))`",
            prose(ROOT / "CONTRIBUTING.md"),
        )
    )
    assert len(named) > 40
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []
