"""What tests share: settings of their own, a fake upstream, and real gateway processes in front of it."""

from __future__ import annotations

import atexit
import os
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

# Before Django reads its settings: nothing of the machine's own configuration reaches a test.
_OF_THE_TESTS = frozenset(("LLM_TRAFFIC_DIR",))
for _name in [name for name in os.environ if name.startswith(("OPENAI_", "ANTHROPIC_", "LLM_", "WEB_", "BILLING_"))]:
    if _name not in _OF_THE_TESTS:
        del os.environ[_name]
_VAR = Path(tempfile.mkdtemp(prefix="llm-tests-"))
atexit.register(shutil.rmtree, _VAR, ignore_errors=True)
os.environ["DJANGO_SETTINGS_MODULE"] = "llmproject.settings"
os.environ["LLM_ENV_FILE"] = ""
os.environ["LLM_EXTRA_SETTINGS"] = ",".join(_OF_THE_TESTS)
os.environ["VAR_DIR"] = str(_VAR)
os.environ["SECRET_KEY"] = "a secret of the tests, long enough for what it is asked to protect"
os.environ["LLM_KEY_PEPPER"] = "a pepper of the tests"
os.environ["LLM_SECRETS_KEY"] = "a key of the tests that encrypts what they store"
# Without a seller no invoice is issued.
os.environ["BILLING_SELLER_NAME"] = "Gateway GmbH"
os.environ["BILLING_SELLER_ADDRESS"] = "1 Example Street | 12345 Example City"
os.environ["BILLING_SELLER_TAX_ID"] = "DE 123 456 789"
_OURS = ["DJANGO_SETTINGS_MODULE", "VAR_DIR"]
if "DATABASE_URL" not in os.environ:
    os.environ["DATABASE_URL"] = f"sqlite:///{_VAR}/db.sqlite3"
    _OURS.append("DATABASE_URL")
if "REDIS_URL" in os.environ and "PYTEST_XDIST_WORKER" in os.environ:
    # A database for each process: who clears the cache empties a whole one.
    _number = int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw")) % 15 + 1
    os.environ["REDIS_URL"] = urlsplit(os.environ["REDIS_URL"])._replace(path=f"/{_number}").geturl()

import django  # noqa: E402
import hypothesis  # noqa: E402
import pytest  # noqa: E402
from _pytest.nodeid import NodeId  # noqa: E402

django.setup()

from django.conf import settings as django_settings  # noqa: E402

# The machine's load must not fail a test.
hypothesis.settings.register_profile("untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("untimed")
# Slow hashing is for real passwords.
django_settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
# Each client of a test would look for every static file first, and none asks for one.
django_settings.WHITENOISE_AUTOREFRESH = True

from asgiref.sync import SyncToAsync  # noqa: E402
from django.core.management.commands.flush import Command as FlushCommand  # noqa: E402
from django.db import connection, connections  # noqa: E402
from pytest_django import DjangoDbBlocker  # noqa: E402

from llm.calls.runtime import close_runtime  # noqa: E402
from llm.keys import create_key, get_or_create_account  # noqa: E402
from llm.models import Account  # noqa: E402
from llm.signin import forget_sign_ins  # noqa: E402
from llmproject.proofs import forget_proofs  # noqa: E402
from llmproject.quietlogs import told_outages  # noqa: E402
from tests.emptying import Emptier  # noqa: E402
from tests.fakes import FakeUpstream  # noqa: E402
from tests.faults.cluster import server_programs  # noqa: E402
from tests.gateway_process import Gateway, GatewayPool, latest_logs  # noqa: E402
from tests.threads import OpenConnections  # noqa: E402
from tests.tiers import refused_processes  # noqa: E402

_open_connections = OpenConnections()


def pytest_configure(config: pytest.Config) -> None:
    """The workers of a process that only distributes tests are to find folders of their own, not those of this one."""
    if config.getoption("numprocesses", None) and not hasattr(config, "workerinput"):
        for name in _OURS:
            del os.environ[name]


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """More than cores: much of what tests do is to wait for processes that they have started. Fast ones start none."""
    cores = os.cpu_count() or 1
    return cores if config.getoption("fast") else max(1, cores * 3 // 2)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--database-only", action="store_true", help="only tests that may end otherwise on another kind of database"
    )
    parser.addoption("--fast", action="store_true", help="only tests that start no process and take no second")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Slow ones begin first: at the end all workers would wait for the last of them."""
    for option, is_chosen in (("database_only", _depends_on_the_database), ("fast", _is_fast)):
        if config.getoption(option):
            config.hook.pytest_deselected(items=[item for item in items if not is_chosen(item)])
            items[:] = filter(is_chosen, items)
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
    if getattr(config.option, "loadgroup", False):
        for item in items:
            _group_by_gateway(item)
            _name_group(item)


def _group_by_gateway(item: pytest.Item) -> None:
    """Tests of a file that start gateways of their own run in one process, which starts each of these only once."""
    names = getattr(item, "fixturenames", ())
    if "start_gateway" in names and "gateway" not in names and item.get_closest_marker("xdist_group") is None:
        item.add_marker(pytest.mark.xdist_group(item.path.stem))


def _name_group(item: pytest.Item) -> None:
    """Where xdist looks for it: it writes to a member that pytest reads no more since 9.2, and groups fell apart."""
    names = {mark.args[0] for mark in item.iter_markers("xdist_group")}
    suffix = f"@{'_'.join(sorted(names))}"
    if names and not item.nodeid.endswith(suffix):
        item._id = NodeId.parse(item.nodeid + suffix)


def _depends_on_the_database(item: pytest.Item) -> bool:
    """Others can't: pytest-django refuses them any access. Pages in a browser and what is said on the wire don't."""
    if item.get_closest_marker("browser") or item.get_closest_marker("wire"):
        return False
    marks = ("django_db", "postgres", "own_database")
    return any(map(item.get_closest_marker, marks)) or "django_db_setup" in getattr(item, "fixturenames", ())


def _is_fast(item: pytest.Item) -> bool:
    """A gateway is a process, whoever asks for it."""
    marks = ("browser", "e2e", "own_database", "processes", "slow")
    return not any(map(item.get_closest_marker, marks)) and "_gateway_pool" not in getattr(item, "fixturenames", ())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """With --fast a test that starts a process fails: nobody would notice a missing mark."""
    _open_connections.test = item.nodeid
    if not item.config.getoption("fast"):
        return (yield)
    with refused_processes():
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    """A thread that has ended has closed its connections."""
    result = yield
    if forgotten := _open_connections.close_forgotten():
        pytest.fail(f"Threads left connections to the database open: {', '.join(forgotten)}", pytrace=False)
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed test shows what the gateways said that were running."""
    report = yield
    if report.failed and "_gateway_pool" in getattr(item, "fixturenames", ()):
        report.sections += [(f"log of {url}", log) for url, log in latest_logs().items()]
    return report


@pytest.fixture(scope="session", autouse=True)
def _require_services() -> None:
    """What CI counts on ends the run where it is missing: a suite that quietly does without proves nothing."""
    if not os.environ.get("REQUIRE_SERVICES"):
        return
    if shutil.which("curl") is None:
        pytest.exit("curl is missing.", returncode=1)
    if server_programs() is None:
        pytest.exit("There is no PostgreSQL server on this machine that tests could crash.", returncode=1)
    for name in ("DATABASE_URL", "CELERY_BROKER_URL", "REDIS_URL"):
        address = urlsplit(os.environ.get(name, ""))
        if address.hostname is None or address.port is None:
            continue
        try:
            socket.create_connection((address.hostname, address.port), timeout=5).close()
        except OSError:
            pytest.exit(f"{name} is set, but nothing answers at {address.hostname}:{address.port}.", returncode=1)


@pytest.fixture(scope="session")
def django_db_modify_db_settings(django_db_modify_db_settings_parallel_suffix: None) -> None:
    """SQLite tests use a file: other threads and processes must see the same database."""
    if connection.vendor == "sqlite":
        worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
        connection.settings_dict["TEST"]["NAME"] = str(_VAR / f"test-{worker}.sqlite3")


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """PostgreSQL drops no database that somebody is connected to: threads of ended tests may still be."""
    yield
    if connection.vendor == "postgresql":
        with django_db_blocker.unblock(), connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )


@pytest.fixture(scope="session", autouse=True)
def _empty_quickly() -> Iterator[None]:
    emptier = Emptier(FlushCommand.handle)

    def handle(self: FlushCommand, **options: Any) -> None:
        emptier.handle(self, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FlushCommand, "handle", handle)
        yield


@pytest.fixture(scope="session")
def _session_upstream() -> Iterator[FakeUpstream]:
    with FakeUpstream() as upstream:
        yield upstream


@pytest.fixture(autouse=True)
def _forget_what_was_seen() -> None:
    """What a process remembers of strangers: each test begins as a new one."""
    forget_proofs()
    forget_sign_ins()
    told_outages.forget()


@pytest.fixture
def upstream(_session_upstream: FakeUpstream) -> FakeUpstream:
    """A provider of our own making, with an empty ledger."""
    _session_upstream.reset()
    return _session_upstream


@pytest.fixture(scope="session")
def _gateway_pool(django_db_setup: None) -> Iterator[GatewayPool]:
    # They must be gone before PostgreSQL is asked to drop the database that they are connected to.
    with GatewayPool() as pool:
        yield pool


@pytest.fixture(scope="session")
def gateway_environment(_session_upstream: FakeUpstream) -> dict[str, str]:
    """What a gateway in front of the fake upstream is started with."""
    return {
        "LLM_PROVIDER": "openai",
        "OPENAI_API_KEY": "sk-test-our-own-upstream-key-0123456789",
        "ANTHROPIC_API_KEY": "sk-ant-test-our-own-upstream-key-0123456789",
        "LLM_OPENAI_BASE_URL": _session_upstream.openai_base_url,
        "LLM_ANTHROPIC_BASE_URL": _session_upstream.anthropic_base_url,
        "LLM_UNPRICED_MODELS": "flag",
        # Tests share gateways: what fails in one must not be passed over in another.
        "LLM_TARGET_FAILURES": "0",
    }


@pytest.fixture
def start_gateway(
    _gateway_pool: GatewayPool, gateway_environment: dict[str, str], upstream: FakeUpstream, transactional_db: None
) -> Callable[..., Gateway]:
    """Starts (or finds running) a gateway in front of the fake upstream; keyword arguments are its environment."""

    def start(**environment: str) -> Gateway:
        return _gateway_pool.get({**gateway_environment, **environment})

    return start


@pytest.fixture
def gateway(start_gateway: Callable[..., Gateway]) -> Gateway:
    """A gateway with the `openai` provider, which serves unpriced models too."""
    return start_gateway()


@pytest.fixture
def account(transactional_db: None) -> Account:
    return get_or_create_account("acme")


@pytest.fixture
def api_key(account: Account) -> str:
    """The secret of a fresh key of `account`."""
    return create_key(account, name="tests")[1]


@pytest.fixture(autouse=True)
def _threads_of_async_tests_keep_no_connection(request: pytest.FixtureRequest) -> Iterator[None]:
    """Another test may end all connections to the database, and nobody would notice in that thread."""
    yield
    if request.node.get_closest_marker("asyncio") is not None:
        SyncToAsync.single_thread_executor.submit(connections.close_all).result()


@pytest.fixture
async def own_runtime(transactional_db: None) -> AsyncIterator[None]:
    """For tests that run gateway code in their own event loop: closes what it opened."""
    yield
    await close_runtime()
