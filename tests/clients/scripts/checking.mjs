// What the scripts for Node share: checking.py's counterpart.
import assert from "node:assert/strict";

export const URL = process.env.GATEWAY_URL;
export const KEY = process.env.GATEWAY_KEY;
export const MODEL = process.env.MODEL;
export const BEHIND = process.env.BEHIND;
export const HELLO = "hello there";
export const SAID = "You said: hello there";

/** The gateway refused something by name that it documents to refuse. */
export class Refused extends Error {}

/** Run them one after the other, and print what became of each as a line of JSON. */
export async function run(checks) {
  for (const [name, check] of Object.entries(checks)) {
    let error = null;
    try {
      await check();
    } catch (failure) {
      error = failure instanceof Refused ? `refused: ${failure.message}` : `${failure}`.slice(0, 600);
      if (!(failure instanceof Refused)) console.error(failure);
    }
    console.log(JSON.stringify({ name, error }).replace('{"name":', '{"name": '));
  }
}

/** The error that the promise is rejected with, which must be of that class. */
export async function rejected(kind, promise) {
  const error = await promise.then(
    () => assert.fail(`${kind.name} was expected`),
    (failure) => failure,
  );
  assert.ok(error instanceof kind, `${error?.constructor?.name} instead of ${kind.name}: ${error}`);
  return error;
}

/** Behind a provider that has no such endpoint the gateway says so with a 400. */
export async function unless(has, kind, ask) {
  if (has) return await ask();
  const error = await rejected(kind, ask());
  throw new Refused(error.message);
}
