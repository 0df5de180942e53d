"""Pydantic AI in front of chat completions, responses and messages."""

from anthropic import AsyncAnthropic
from checking import BEHIND, HELLO, KEY, MODEL, SAID, URL, equal, run
from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput, ToolOutput
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider

openai = OpenAIProvider(base_url=f"{URL}/v1", api_key=KEY)


def models():
    """New ones for each event loop: their connections belong to one."""
    anthropic = AnthropicProvider(anthropic_client=AsyncAnthropic(base_url=URL, api_key=KEY, max_retries=0))
    openai = OpenAIProvider(base_url=f"{URL}/v1", api_key=KEY)
    return {
        "chat completions": OpenAIChatModel(MODEL, provider=openai),
        "responses": OpenAIResponsesModel(MODEL, provider=openai),
        "messages": AnthropicModel(MODEL, provider=anthropic),
    }


class Verdict(BaseModel):
    answer: str
    confidence: float


async def chat():
    for name, model in models().items():
        result = await Agent(model).run(HELLO)
        equal((name, result.output), (name, SAID))
        assert result.usage.total_tokens > 0, name


async def stream():
    for name, model in models().items():
        async with Agent(model).run_stream(HELLO) as result:
            said = [text async for text in result.stream_text(delta=True)]
        equal((name, "".join(said)), (name, SAID))


async def tools():
    for name, model in models().items():
        agent, seen = Agent(model), []

        @agent.tool_plain
        def weather(city: str) -> str:
            """The weather of a city."""
            seen.append(city)  # noqa: B023  # called before the next turn
            return "sunny"

        assert (await agent.run("use the tool")).output, name
        equal((name, seen), (name, ["sample"]))


async def structured():
    for name, model in models().items():
        outputs = [ToolOutput(Verdict)]
        if name != "messages" or BEHIND == "claude":
            outputs.append(NativeOutput(Verdict))
        for output in outputs:
            result = await Agent(model, output_type=output).run(HELLO)
            assert isinstance(result.output, Verdict), (name, output)


run(chat, stream, tools, structured)
