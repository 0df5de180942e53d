"""LangChain in front of Anthropic's messages."""

from checking import HELLO, KEY, MODEL, SAID, URL, equal, run
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from pydantic import BaseModel

model = ChatAnthropic(base_url=URL, api_key=KEY, model=MODEL, max_retries=0, max_tokens=1024)


class Verdict(BaseModel):
    answer: str
    confidence: float


@tool
def weather(city: str) -> str:
    """The weather of a city."""
    return f"sunny in {city}"


def chat():
    reply = model.invoke(HELLO)
    equal(reply.text, SAID)
    assert reply.usage_metadata["total_tokens"] > 0


def stream():
    chunks = list(model.stream(HELLO))
    equal("".join(chunk.text for chunk in chunks), SAID)
    assert sum(chunk.usage_metadata["total_tokens"] for chunk in chunks if chunk.usage_metadata) > 0


async def asynchronous():
    equal((await model.ainvoke(HELLO)).text, SAID)
    equal("".join([chunk.text async for chunk in model.astream(HELLO)]), SAID)


def tools():
    bound, turns = model.bind_tools([weather]), [HumanMessage("use the tool")]
    called = bound.invoke(turns)
    [call] = called.tool_calls
    equal((call["name"], call["args"]), ("weather", {"city": "sample"}))
    turns += [called, ToolMessage(weather.invoke(call["args"]), tool_call_id=call["id"])]
    assert bound.invoke(turns).text


def structured():
    for method in ("json_schema", "function_calling"):
        verdict = model.with_structured_output(Verdict, method=method).invoke(HELLO)
        assert isinstance(verdict, Verdict), method


def count_tokens():
    assert model.get_num_tokens_from_messages([HumanMessage(HELLO)]) > 0


run(chat, stream, asynchronous, tools, structured, count_tokens)
