// Anthropic's SDK for Node: every endpoint that the gateway has, whole and streamed, the helpers, and errors as classes.
import assert from "node:assert/strict";
import Anthropic from "@anthropic-ai/sdk";
import { betaZodTool } from "@anthropic-ai/sdk/helpers/beta/zod";
import { zodOutputFormat } from "@anthropic-ai/sdk/helpers/zod";
import { z } from "zod";
import { HELLO, KEY, MODEL, SAID, URL, rejected, run } from "./checking.mjs";

const client = new Anthropic({ baseURL: URL, apiKey: KEY, maxRetries: 0 });
const asked = { model: MODEL, max_tokens: 1024, messages: [{ role: "user", content: HELLO }] };
const wish = { model: MODEL, max_tokens: 1024, messages: [{ role: "user", content: "use the tool" }] };
const weather = { name: "weather", input_schema: { type: "object", properties: { city: { type: "string" } } } };

await run({
  async chat() {
    const message = await client.messages.create({ ...asked, system: "Be brief." });
    assert.deepEqual([message.content[0].text, message.stop_reason], [SAID, "end_turn"]);
    assert.ok(message.usage.output_tokens > 0);
    assert.ok(message._request_id.startsWith("req_"));
  },
  async stream() {
    let said = "", last;
    for await (const event of await client.messages.create({ ...asked, stream: true })) {
      if (event.type === "content_block_delta") said += event.delta.text;
      last = event.type;
    }
    assert.deepEqual([said, last], [SAID, "message_stop"]);
  },
  async "stream helper"() {
    const stream = client.messages.stream(asked);
    let deltas = "";
    stream.on("text", (text) => (deltas += text));
    const message = await stream.finalMessage();
    assert.deepEqual([message.content[0].text, deltas], [SAID, SAID]);
    assert.ok(message.usage.output_tokens > 0);
  },
  async tools() {
    const seen = [];
    const tool = betaZodTool({
      name: "weather",
      description: "The weather of a city.",
      inputSchema: z.object({ city: z.string() }),
      run: ({ city }) => (seen.push(city), "sunny"),
    });
    const message = await client.beta.messages.toolRunner({ ...wish, tools: [tool] });
    assert.deepEqual([seen, message.stop_reason], [["sample"], "end_turn"]);
  },
  async "tools on a stream"() {
    const message = await client.messages.stream({ ...wish, tools: [weather] }).finalMessage();
    const call = message.content.find((block) => block.type === "tool_use");
    assert.deepEqual([call.name, call.input, message.stop_reason], ["weather", { city: "sample" }, "tool_use"]);
  },
  async structured() {
    const format = zodOutputFormat(z.object({ answer: z.string(), confidence: z.number() }));
    const message = await client.messages.parse({ ...asked, output_config: { format } });
    assert.deepEqual(message.parsed_output, { answer: "yes", confidence: 1 });
  },
  async "count_tokens"() {
    const counted = await client.messages.countTokens({ model: MODEL, messages: asked.messages });
    assert.ok(counted.input_tokens > 0);
  },
  async models() {
    const ids = [];
    for await (const model of client.models.list({ limit: 2 })) ids.push(model.id);
    for (const id of ids.slice(0, 3)) assert.equal((await client.models.retrieve(id)).id, id);
    await rejected(Anthropic.NotFoundError, client.models.retrieve("no-such-model"));
  },
  async errors() {
    const stranger = new Anthropic({ baseURL: URL, apiKey: "llm_wrong", maxRetries: 0 });
    const unknown = await rejected(Anthropic.AuthenticationError, stranger.messages.create(asked));
    assert.equal(unknown.error.error.type, "authentication_error");
    const kinds = [
      ["fake-400", Anthropic.BadRequestError, "invalid_request_error"],
      ["fake-404", Anthropic.NotFoundError, "not_found_error"],
      ["fake-429-30", Anthropic.RateLimitError, "rate_limit_error"],
      ["fake-500", Anthropic.InternalServerError, "api_error"],
      ["fake-529", Anthropic.InternalServerError, "overloaded_error"],
      ["fake-garbage", Anthropic.InternalServerError, "api_error"],
    ];
    for (const [model, kind, type] of kinds) {
      const error = await rejected(kind, client.messages.create({ ...asked, model }));
      assert.equal(error.error.error.type, type, model);
    }
    await rejected(Anthropic.BadRequestError, client.messages.create({ ...asked, messages: "hello" }));
    await rejected(Anthropic.NotFoundError, client.messages.batches.list());
  },
  async "errors on a stream"() {
    const stream = client.messages.stream({ ...asked, model: "fake-error-event-5" });
    const error = await rejected(Anthropic.APIError, stream.finalMessage());
    assert.equal(error.error.error.type, "api_error");
  },
});
