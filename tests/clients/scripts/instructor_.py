"""Instructor, which knows structured output alone: by tools, by JSON schema, streamed, with both SDKs."""

import instructor
from anthropic import Anthropic
from checking import BEHIND, HELLO, KEY, MODEL, URL, equal, run
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

sdk = OpenAI(base_url=f"{URL}/v1", api_key=KEY, max_retries=0)
claude = Anthropic(base_url=URL, api_key=KEY, max_retries=0)
ASKED = {"model": MODEL, "messages": [{"role": "user", "content": HELLO}], "max_retries": 0}


class Verdict(BaseModel):
    answer: str
    confidence: float


def structured():
    # Anthropic has no JSON without a schema: it is asked for in words, which a fake upstream doesn't follow.
    plain = () if BEHIND == "claude" else (instructor.Mode.JSON,)
    for mode in (instructor.Mode.TOOLS, instructor.Mode.JSON_SCHEMA, *plain):
        client = instructor.from_openai(sdk, mode=mode)
        assert isinstance(client.chat.completions.create(**ASKED, response_model=Verdict), Verdict), mode


def stream():
    client = instructor.from_openai(sdk, mode=instructor.Mode.TOOLS)
    parts = list(client.chat.completions.create_partial(**ASKED, response_model=Verdict))
    equal(parts[-1].answer, "sample")


def messages():
    client = instructor.from_anthropic(claude, mode=instructor.Mode.ANTHROPIC_TOOLS)
    verdict = client.messages.create(**ASKED, max_tokens=1024, response_model=Verdict)
    equal(verdict.answer, "sample")


async def asynchronous():
    own = AsyncOpenAI(base_url=f"{URL}/v1", api_key=KEY, max_retries=0)
    client = instructor.from_openai(own, mode=instructor.Mode.TOOLS)
    equal((await client.chat.completions.create(**ASKED, response_model=Verdict)).answer, "sample")


run(structured, stream, messages, asynchronous)
