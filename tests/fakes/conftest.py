from collections.abc import AsyncIterator, Iterator

import aiohttp
import pytest
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI

from tests.fakes import FakeUpstream


@pytest.fixture(scope="module")
def running_upstream() -> Iterator[FakeUpstream]:
    with FakeUpstream() as upstream:
        yield upstream


@pytest.fixture
def upstream(running_upstream: FakeUpstream) -> FakeUpstream:
    running_upstream.reset()
    return running_upstream


@pytest.fixture
async def openai_client(upstream: FakeUpstream) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(api_key="sk-test", base_url=upstream.openai_base_url, max_retries=0) as client:
        yield client


@pytest.fixture
async def anthropic_client(upstream: FakeUpstream) -> AsyncIterator[AsyncAnthropic]:
    async with AsyncAnthropic(api_key="sk-ant-test", base_url=upstream.anthropic_base_url, max_retries=0) as client:
        yield client


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """A client that shows the bytes, for what no SDK would let through."""
    headers = {"authorization": "Bearer sk-test"}
    async with aiohttp.ClientSession(headers=headers, cookie_jar=aiohttp.DummyCookieJar()) as session:
        yield session
