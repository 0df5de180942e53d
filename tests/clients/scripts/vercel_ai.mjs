// Vercel's AI SDK with its providers for OpenAI (responses and chat), Anthropic, and servers that are compatible.
import assert from "node:assert/strict";
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { embedMany, generateText, Output, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";
import { BEHIND, HELLO, KEY, MODEL, SAID, URL, Refused, run } from "./checking.mjs";

const openai = createOpenAI({ baseURL: `${URL}/v1`, apiKey: KEY });
const anthropic = createAnthropic({ baseURL: `${URL}/v1`, apiKey: KEY });
const compatible = createOpenAICompatible({
  name: "gateway",
  baseURL: `${URL}/v1`,
  apiKey: KEY,
  includeUsage: true,
  supportsStructuredOutputs: true,
});
const models = {
  responses: openai(MODEL),
  chat: openai.chat(MODEL),
  messages: anthropic(MODEL),
  compatible: compatible(MODEL),
};
const schema = z.object({ answer: z.string(), confidence: z.number() });

async function each(ask) {
  for (const [name, model] of Object.entries(models)) {
    try {
      await ask(model);
    } catch (error) {
      throw new Error(`${name}: ${error}`, { cause: error });
    }
  }
}

await run({
  chat: () =>
    each(async (model) => {
      const { text, usage } = await generateText({ model, prompt: HELLO, maxRetries: 0 });
      assert.equal(text, SAID);
      assert.ok(usage.totalTokens > 0);
    }),
  stream: () =>
    each(async (model) => {
      let said = "", failure;
      const result = streamText({ model, prompt: HELLO, maxRetries: 0, onError: ({ error }) => (failure = error) });
      for await (const delta of result.textStream) said += delta;
      if (failure) throw failure;
      assert.equal(said, SAID);
      assert.ok((await result.usage).totalTokens > 0);
    }),
  tools: () =>
    each(async (model) => {
      const seen = [];
      const weather = tool({
        description: "The weather of a city.",
        inputSchema: z.object({ city: z.string() }),
        execute: async ({ city }) => (seen.push(city), "sunny"),
      });
      const result = await generateText({
        model,
        prompt: "use the tool",
        tools: { weather },
        stopWhen: stepCountIs(3),
        maxRetries: 0,
      });
      assert.deepEqual([seen, result.finishReason], [["sample"], "stop"]);
    }),
  "tools on a stream": () =>
    each(async (model) => {
      const seen = [];
      const weather = tool({
        inputSchema: z.object({ city: z.string() }),
        execute: async ({ city }) => (seen.push(city), "sunny"),
      });
      const result = streamText({ model, prompt: "use the tool", tools: { weather }, stopWhen: stepCountIs(3), maxRetries: 0 });
      assert.equal(await result.finishReason, "stop");
      assert.deepEqual(seen, ["sample"]);
    }),
  structured: () =>
    each(async (model) => {
      const result = await generateText({ model, prompt: HELLO, output: Output.object({ schema }), maxRetries: 0 });
      assert.equal(typeof result.output.answer, "string");
    }),
  async embeddings() {
    const ask = embedMany({ model: openai.embedding(MODEL), values: ["Lisbon", "Porto"], maxRetries: 0 });
    const result = await ask.catch((error) => {
      assert.equal(BEHIND, "claude");
      throw new Refused(error.message);
    });
    assert.deepEqual(
      result.embeddings.map((vector) => vector.length),
      [1536, 1536],
    );
  },
});
