// OpenAI's SDK for Node: every endpoint that the gateway has, whole and streamed, the helpers, and errors as classes.
import assert from "node:assert/strict";
import OpenAI from "openai";
import { zodResponseFormat, zodTextFormat, zodFunction } from "openai/helpers/zod";
import { z } from "zod";
import { BEHIND, HELLO, KEY, MODEL, SAID, URL, Refused, rejected, run, unless } from "./checking.mjs";

const client = new OpenAI({ baseURL: `${URL}/v1`, apiKey: KEY, maxRetries: 0 });
const asked = { model: MODEL, messages: [{ role: "user", content: HELLO }] };
const Verdict = z.object({ answer: z.string(), confidence: z.number() });
const parameters = { type: "object", properties: { city: { type: "string" } } };
const weather = { type: "function", function: { name: "weather", parameters } };
const flat = { type: "function", name: "weather", parameters, strict: false };
const hasEmbeddings = BEHIND !== "claude";
const hasCompletions = BEHIND === "openai";
const keepsResponses = BEHIND === "openai";

await run({
  async chat() {
    const reply = await client.chat.completions.create(asked);
    assert.equal(reply.choices[0].message.content, SAID);
    assert.ok(reply.usage.total_tokens > 0);
    assert.ok(reply._request_id.startsWith("req_"));
  },
  async stream() {
    let said = "", usage;
    const stream = await client.chat.completions.create({ ...asked, stream: true, stream_options: { include_usage: true } });
    for await (const chunk of stream) {
      said += chunk.choices[0]?.delta?.content ?? "";
      usage = chunk.usage ?? usage;
    }
    assert.equal(said, SAID);
    assert.ok(usage.total_tokens > 0);
  },
  async "stream helper"() {
    const runner = client.chat.completions.stream(asked);
    let deltas = "";
    runner.on("content", (delta) => (deltas += delta));
    assert.equal(await runner.finalContent(), SAID);
    assert.equal(deltas, SAID);
  },
  async tools() {
    const seen = [];
    const tool = zodFunction({
      name: "weather",
      parameters: z.object({ city: z.string() }),
      function: async ({ city }) => (seen.push(city), "sunny"),
    });
    const messages = [{ role: "user", content: "use the tool" }];
    const runner = client.chat.completions.runTools({ model: MODEL, messages, tools: [tool] });
    assert.equal(typeof (await runner.finalContent()), "string");
    assert.deepEqual(seen, ["sample"]);
  },
  async "tools on a stream"() {
    const messages = [{ role: "user", content: "use the tool" }];
    const runner = client.chat.completions.stream({ model: MODEL, messages, tools: [weather] });
    const reply = await runner.finalChatCompletion();
    assert.equal(reply.choices[0].message.tool_calls[0].function.arguments, '{"city":"sample"}');
  },
  async structured() {
    const reply = await client.chat.completions.parse({ ...asked, response_format: zodResponseFormat(Verdict, "verdict") });
    assert.deepEqual(reply.choices[0].message.parsed, { answer: "yes", confidence: 1 });
  },
  async responses() {
    const reply = await client.responses.create({ model: MODEL, input: HELLO });
    assert.equal(reply.output_text, SAID);
    assert.ok(reply.usage.total_tokens > 0);
  },
  async "responses stream"() {
    let said = "", last;
    for await (const event of await client.responses.create({ model: MODEL, input: HELLO, stream: true })) {
      if (event.type === "response.output_text.delta") said += event.delta;
      last = event.type;
    }
    assert.deepEqual([said, last], [SAID, "response.completed"]);
  },
  async "responses stream helper"() {
    const stream = client.responses.stream({ model: MODEL, input: HELLO });
    assert.equal((await stream.finalResponse()).output_text, SAID);
  },
  async "responses tools"() {
    const input = [{ role: "user", content: "use the tool" }];
    const first = await client.responses.create({ model: MODEL, input, tools: [flat] });
    const call = first.output.find((item) => item.type === "function_call");
    assert.equal(call.arguments, '{"city":"sample"}');
    input.push(...first.output, { type: "function_call_output", call_id: call.call_id, output: "sunny" });
    const second = await client.responses.create({ model: MODEL, input, tools: [flat] });
    assert.ok(second.output_text.length > 0);
  },
  async "responses structured"() {
    const text = { format: zodTextFormat(Verdict, "verdict") };
    const reply = await client.responses.parse({ model: MODEL, input: HELLO, text });
    assert.deepEqual(reply.output_parsed, { answer: "yes", confidence: 1 });
  },
  async "responses kept"() {
    const made = await client.responses.create({ model: MODEL, input: HELLO });
    if (!keepsResponses) {
      const error = await rejected(OpenAI.NotFoundError, client.responses.retrieve(made.id));
      throw new Refused(error.message.replace(made.id, "resp_..."));
    }
    assert.equal((await client.responses.retrieve(made.id)).id, made.id);
    const items = [];
    for await (const item of client.responses.inputItems.list(made.id)) items.push(item.content);
    assert.deepEqual(items, [HELLO]);
    const next = await client.responses.create({ model: MODEL, input: HELLO, previous_response_id: made.id });
    assert.equal(next.output_text, SAID);
    await rejected(OpenAI.BadRequestError, client.responses.cancel(made.id));
    await client.responses.delete(made.id);
    await rejected(OpenAI.NotFoundError, client.responses.retrieve(made.id));
  },
  async embeddings() {
    const ask = () => client.embeddings.create({ model: MODEL, input: ["Lisbon", "Porto"] });
    const vectors = await unless(hasEmbeddings, OpenAI.BadRequestError, ask);
    assert.deepEqual([vectors.data.length, vectors.data[0].embedding.length], [2, 1536]);
  },
  async completions() {
    const ask = () => client.completions.create({ model: MODEL, prompt: HELLO });
    const reply = await unless(hasCompletions, OpenAI.BadRequestError, ask);
    assert.equal(reply.choices[0].text, SAID);
    let said = "";
    for await (const part of await client.completions.create({ model: MODEL, prompt: HELLO, stream: true })) {
      said += part.choices[0]?.text ?? "";
    }
    assert.equal(said, SAID);
  },
  async models() {
    const ids = [];
    for await (const model of client.models.list()) ids.push(model.id);
    for (const id of ids.slice(0, 3)) assert.equal((await client.models.retrieve(id)).id, id);
    await rejected(OpenAI.NotFoundError, client.models.retrieve("no-such-model"));
  },
  async errors() {
    const stranger = new OpenAI({ baseURL: `${URL}/v1`, apiKey: "llm_wrong", maxRetries: 0 });
    const unknown = await rejected(OpenAI.AuthenticationError, stranger.chat.completions.create(asked));
    assert.deepEqual([unknown.status, unknown.code], [401, "invalid_api_key"]);
    assert.ok(unknown.requestID.startsWith("req_"));
    const kinds = [
      ["fake-400", OpenAI.BadRequestError],
      ["fake-404", OpenAI.NotFoundError],
      ["fake-429-30", OpenAI.RateLimitError],
      ["fake-500", OpenAI.InternalServerError],
      ["fake-garbage", OpenAI.InternalServerError],
    ];
    for (const [model, kind] of kinds) {
      await rejected(kind, client.chat.completions.create({ ...asked, model }));
      await rejected(kind, client.responses.create({ model, input: HELLO }));
      if (hasEmbeddings) await rejected(kind, client.embeddings.create({ model, input: HELLO }));
      if (hasCompletions) await rejected(kind, client.completions.create({ model, prompt: HELLO }));
    }
    await rejected(OpenAI.BadRequestError, client.chat.completions.create({ ...asked, messages: "hello" }));
    await rejected(OpenAI.NotFoundError, client.moderations.create({ input: "x" }));
  },
  async "errors on a stream"() {
    const read = async (stream) => {
      for await (const _ of await stream);
    };
    const model = "fake-error-event-5";
    await rejected(OpenAI.APIError, read(client.chat.completions.create({ ...asked, model, stream: true })));
    const failed = read(client.responses.create({ model, input: HELLO, stream: true }));
    await rejected(OpenAI.APIError, failed);
  },
});
