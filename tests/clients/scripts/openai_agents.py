"""OpenAI's Agents SDK, in front of responses (its default) and chat completions."""

import json

from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from checking import HELLO, KEY, MODEL, SAID, URL, equal, run
from openai import AsyncOpenAI
from pydantic import BaseModel

set_tracing_disabled(True)


class Verdict(BaseModel):
    answer: str
    confidence: float


def models():
    client = AsyncOpenAI(base_url=f"{URL}/v1", api_key=KEY, max_retries=0)
    return [OpenAIResponsesModel(MODEL, client), OpenAIChatCompletionsModel(MODEL, client)]


async def chat():
    for model in models():
        result = await Runner.run(Agent(name="a", instructions="Be brief.", model=model), HELLO)
        equal(result.final_output, SAID)


async def stream():
    for model in models():
        settings = ModelSettings(include_usage=True)
        result = Runner.run_streamed(Agent(name="a", model=model, model_settings=settings), HELLO)
        said = ""
        async for event in result.stream_events():
            if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
                said += event.data.delta
        equal((said, result.final_output), (SAID, SAID))


async def tools():
    for model in models():
        seen = []

        @function_tool
        def weather(city: str) -> str:
            """The weather of a city."""
            seen.append(city)  # noqa: B023  # called before the next turn
            return "sunny"

        result = await Runner.run(Agent(name="a", model=model, tools=[weather]), "use the tool")
        assert result.final_output is not None
        equal(seen, ["sample"])


async def structured():
    for model in models():
        result = await Runner.run(Agent(name="a", model=model, output_type=Verdict), HELLO)
        assert isinstance(result.final_output, Verdict), json.dumps(result.final_output)


async def handoff():
    for model in models():
        other = Agent(name="other", model=model)
        result = await Runner.run(Agent(name="a", model=model, handoffs=[other]), "use the tool")
        equal(result.last_agent.name, "other")


run(chat, stream, tools, structured, handoff)
