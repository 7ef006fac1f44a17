import assert from "node:assert/strict";
import test from "node:test";

import { EMPTY, fold } from "../../agentstream/web/page/fold.js";
import { answerOf, choicesOf, hintOf } from "../../agentstream/web/page/schema.js";

const events = [
  { seq: 1, type: "run.started", run: "r", team: "t" },
  { seq: 2, type: "agent.started", agent: "a", inv: "a.1" },
  { seq: 3, type: "input.requested", agent: "a", inv: "a.1", request: "a.1.1", kind: "approval", prompt: "Pay?", schema: { type: "boolean" }, expires: 9 },
];
const item = (state) => state.lanes[0].items[0];

test("an open question carries what it asks for, and its invocation waits for a person", () => {
  const state = events.reduce(fold, EMPTY);
  assert.deepEqual(
    [item(state).ask, item(state).text, item(state).schema, item(state).expires, item(state).closed],
    ["approval", "Pay?", { type: "boolean" }, 9, ""],
  );
  assert.equal(state.invs["a.1"].wait, "human");
});

test("an answer closes it, by whichever invocation it was received", () => {
  const state = [...events, { seq: 4, type: "input.received", agent: "a", inv: "a.2", request: "a.1.1", value: false }].reduce(fold, EMPTY);
  assert.deepEqual([item(state).answer, item(state).closed], [false, "answered"]);
});

test("an expired question says why, also where the run closed it", () => {
  for (const reason of ["expired", "stopped", "invalid"]) {
    const state = [...events, { seq: 4, type: "input.expired", request: "a.1.1", reason }].reduce(fold, EMPTY);
    assert.equal(item(state).closed, reason);
  }
});

test("few answers are choices, others are written", () => {
  assert.deepEqual(choicesOf({ ask: "approval", schema: { anyOf: [] } }), [["Allow", true], ["Deny", false]]);
  assert.deepEqual(choicesOf({ ask: "question", schema: { type: "boolean" } }), [["Yes", true], ["No", false]]);
  assert.deepEqual(choicesOf({ ask: "question", schema: { enum: ["a", 2] } }), [["a", "a"], ["2", 2]]);
  assert.equal(choicesOf({ ask: "question", schema: { type: "string" } }), null);
  assert.equal(hintOf({ type: "object", properties: { seats: {}, row: {} } }), "JSON with seats, row");
});

test("words become the value that is asked for", () => {
  assert.equal(answerOf({ type: "string" }, "42"), "42");
  assert.equal(answerOf({ type: "integer" }, "42"), 42);
  assert.deepEqual(answerOf({ type: "object" }, '{"a":1}'), { a: 1 });
  assert.equal(answerOf({ anyOf: [{ type: "string" }, { type: "integer" }] }, "words"), "words");
  assert.throws(() => answerOf({ type: "number" }, "many"), /A number is asked for/);
});
