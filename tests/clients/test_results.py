"""The page about clients says what `make clients` has found, of every client that there is."""

from __future__ import annotations

import re

import pytest

from tests.clients.catalog import CLIENTS, Client
from tests.clients.environments import SCRIPTS
from tests.clients.results import PAGE, read_results, render
from tests.clients.sdk_tests import expected_failures
from tests.clients.stage import MODELS
from tests.clients.trying import REFUSED

EACH_CLIENT = pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)


@EACH_CLIENT
def test_each_client_was_tried_behind_everything_and_its_lines_say_so(client: Client) -> None:
    result = read_results()[client.name]
    assert set(result["behind"]) == set(MODELS)
    assert (SCRIPTS / client.script).is_file()
    [mark] = re.findall(rf"<!-- tried: {re.escape(client.name)} -->(.*)", PAGE.read_text())
    assert result["versions"][client.main_package] in mark
    assert result["day"] in mark


@EACH_CLIENT
def test_no_client_fails_where_nothing_is_refused_by_name(client: Client) -> None:
    places = read_results()[client.name]["behind"].values()
    errors = [error for checks in places for error in checks.values() if error is not None]
    assert [error for error in errors if not error.startswith(REFUSED)] == []


def test_the_table_is_made_from_the_results() -> None:
    page = PAGE.read_text()
    table = page.partition("<!-- results -->\n")[2].partition("<!-- end of results -->")[0]
    assert table == render(read_results())


def test_the_list_of_the_sdks_tests_that_fail_only_shrinks() -> None:
    """Take tests off, and lower the figure; nothing is added."""
    expected = expected_failures(is_mock=False)
    assert len(expected) <= 55
    assert all(expected.values())
    assert expected_failures(is_mock=True).keys() < expected.keys()
