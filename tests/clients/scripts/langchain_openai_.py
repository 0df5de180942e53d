"""LangChain in front of OpenAI's endpoints: chat completions, responses and embeddings."""

from checking import BEHIND, HELLO, KEY, MODEL, SAID, URL, Refused, equal, raised, run
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from openai import BadRequestError
from pydantic import BaseModel

SETTINGS = {"base_url": f"{URL}/v1", "api_key": KEY, "model": MODEL, "max_retries": 0}
# With an address of one's own LangChain doesn't ask for the usage of a stream unless it is told to.
model = ChatOpenAI(**SETTINGS, stream_usage=True)
responding = ChatOpenAI(**SETTINGS, use_responses_api=True)


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
    _loop(model)


def _loop(chosen):
    bound, turns = chosen.bind_tools([weather]), [HumanMessage("use the tool")]
    called = bound.invoke(turns)
    [call] = called.tool_calls
    equal((call["name"], call["args"]), ("weather", {"city": "sample"}))
    turns += [called, ToolMessage(weather.invoke(call["args"]), tool_call_id=call["id"])]
    assert bound.invoke(turns).text


def structured():
    for method in ("json_schema", "function_calling"):
        verdict = model.with_structured_output(Verdict, method=method).invoke(HELLO)
        assert isinstance(verdict, Verdict), method


def responses():
    equal(responding.invoke(HELLO).text, SAID)
    equal("".join(chunk.text for chunk in responding.stream(HELLO)), SAID)
    _loop(responding)
    assert isinstance(responding.with_structured_output(Verdict).invoke(HELLO), Verdict)


def embeddings():
    embedder = OpenAIEmbeddings(**SETTINGS, check_embedding_ctx_length=False)
    if BEHIND == "claude":
        raise Refused(raised(BadRequestError, embedder.embed_query, HELLO))
    vectors = embedder.embed_documents(["Lisbon", "Porto"])
    equal([len(vector) for vector in vectors], [1536, 1536])


run(chat, stream, asynchronous, tools, structured, responses, embeddings)
