"""Tests of one group run in one process: xdist goes by the end of a test's name."""

from __future__ import annotations

import pytest


@pytest.mark.xdist_group("grouped")
def test_a_test_has_its_group_in_its_name(request: pytest.FixtureRequest) -> None:
    is_grouped = getattr(request.config.option, "loadgroup", False)
    assert request.node.nodeid.endswith("@grouped") is is_grouped
