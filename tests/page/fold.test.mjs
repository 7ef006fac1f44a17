import assert from "node:assert/strict";
import test from "node:test";

import { EMPTY, fold } from "../../agentstream/web/page/fold.js";
import { Recording } from "../../agentstream/web/page/record.js";
import { answer, foldable, laneHead, question, tokens, visibleLanes } from "../../agentstream/web/page/select.js";
import { coalesced, script } from "./events.mjs";

const freeze = (value) => {
  if (value === null || typeof value !== "object" || Object.isFrozen(value)) return value;
  Object.freeze(value);
  Object.values(value).forEach(freeze);
  return value;
};
const run = (events) => events.reduce((state, event) => fold(state, event), EMPTY);
const items = (state, agent) => state.lanes.find((lane) => lane.agent === agent).items;

test("the fold never changes a state or an event that it was given", () => {
  let state = EMPTY;
  for (const event of script()) state = freeze(fold(state, freeze(event)));
  assert.equal(state.status, "finished");
});

test("a duplicate gives back the very same state", () => {
  const events = script();
  const state = run(events);
  for (const event of events) assert.equal(fold(state, event), state);
});

test("coalesced deltas give the same texts, and no gap", () => {
  const [plain, joined] = [run(script()), run(coalesced(script()))];
  const text = (state) => state.lanes.map((lane) => lane.items.map((item) => [item.id, item.text, item.outputs]));
  assert.deepEqual(text(joined), text(plain));
  assert.equal(joined.gaps, 0);
  assert.equal(run(script().filter((event) => event.seq !== 6)).gaps, 1);
});

test("invocations of an agent that follow each other share its lane; the silent caller has none", () => {
  const state = run(script());
  assert.deepEqual(visibleLanes(state).map((lane) => [lane.agent, lane.inv, lane.accent]), [
    ["planner", "planner.1", "planner"], ["executor", "executor.2", "executor"], ["verifier", "verifier.2", "verifier"],
  ]);
});

test("invocations that run side by side have a lane each", () => {
  const start = (seq, inv) => ({ seq, type: "agent.started", agent: "coder", inv });
  const state = run([start(1, "coder.1"), start(2, "coder.2"), { seq: 3, type: "agent.finished", agent: "coder", inv: "coder.1" }, start(4, "coder.3")]);
  assert.deepEqual(state.lanes.map((lane) => lane.inv), ["coder.3", "coder.2"]);
  assert.equal(new Set(state.lanes.map((lane) => lane.accent)).size, 1);
});

test("a rejected round says by what it was superseded, the judge's words stay, and the plan counts rounds", () => {
  const state = run(script());
  const byRound = items(state, "executor").filter((item) => item.inv === "executor.1");
  assert.ok(byRound.every((item) => item.old?.by === "round 2"));
  assert.ok(items(state, "executor").filter((item) => item.inv === "executor.2").every((item) => item.old === null));
  assert.ok(items(state, "verifier").every((item) => item.old === null));
  assert.deepEqual(state.plan.map((step) => [step.status, step.round]), [["done", 2], ["pending", 1]]);
});

test("what a lost worker's attempt made names its successor", () => {
  const state = run([
    { seq: 1, type: "agent.started", agent: "coder", inv: "coder.1" },
    { seq: 2, type: "text.started", agent: "coder", inv: "coder.1", block: "b" },
    { seq: 3, type: "agent.failed", agent: "coder", inv: "coder.1", code: "worker_lost" },
    { seq: 4, type: "attempt.superseded", of: "coder.1", attempt: 1, ids: ["b"] },
    { seq: 5, type: "agent.started", agent: "coder", inv: "coder.2", attempt: 2, replaces: "coder.1" },
  ]);
  assert.equal(items(state, "coder")[0].old.by, "coder.2");
});

test("a reset starts from nothing and keeps the run", () => {
  const events = script();
  const reset = fold(run(events), { type: "reset", reason: "trimmed", first: 20, tail: events.length });
  assert.deepEqual([reset.seq, reset.lanes.length, reset.run], [19, 0, events[0].run]);
  assert.equal(fold(reset, events[19]).gaps, 0);
});

test("events of an invocation whose start was trimmed are shown", () => {
  const state = run([{ seq: 1, type: "text.delta", agent: "writer", inv: "writer.1", block: "b", text: "late" }]);
  assert.equal(items(state, "writer")[0].text, "late");
});

test("unknown types and names of the language's own do no harm", () => {
  const state = run([
    { seq: 1, type: "__proto__" }, { seq: 2, type: "constructor" }, { seq: 3, type: "later.thing", agent: "x", inv: "x.1", value: 1 },
    { seq: 4, type: "state.delta", agent: "x", inv: "x.1", ops: [{ op: "add", path: "/__proto__", value: { bad: true } }] },
  ]);
  assert.equal(state.seq, 4);
  const odd = run([{ seq: 1, type: "plan.updated", agent: "constructor", inv: "constructor", steps: 7 }, { seq: 2, type: "agent.waiting", agent: "constructor", inv: "constructor", on: "llm" }]);
  assert.match(odd.notes[0].text, /Event 1 \(plan.updated\)/);
  assert.deepEqual([odd.seq, odd.lanes[0].accent], [2, "a1"]);
  assert.equal({}.bad, undefined);
});

test("the state at every seq is the fold of exactly the events up to it", () => {
  const recording = new Recording();
  const events = [];
  for (let n = 0; n < 12; n += 1) for (const event of script()) if (n === 0 || event.inv) events.push({ ...event, seq: events.length + 1 });
  for (const event of events) recording.add(event, JSON.stringify(event));
  assert.ok(events.length > 500);
  let state = EMPTY;
  for (const event of events) {
    state = fold(state, event);
    assert.deepEqual(recording.at(event.seq), state);
  }
  assert.equal(recording.at(0).seq, 0);
});

test("the head of a lane says what the agent does or waits for", () => {
  const events = script();
  const head = (seq, agent) => {
    const state = run(events.slice(0, seq));
    return laneHead(state, state.lanes.find((lane) => lane.agent === agent), state.at).text;
  };
  assert.equal(head(4, "planner"), "waiting · model");
  assert.equal(head(4, "analyst"), "waiting · planner");
  assert.equal(head(6, "planner"), "thinking");
  assert.equal(head(9, "planner"), "done · 60 ms");
  assert.equal(head(13, "executor"), "writing python");
  assert.equal(head(15, "executor"), "running python");
});

test("more than four lanes fold those that ended while others work", () => {
  const events = [{ seq: 1, type: "run.started", run: "r", team: "t" }];
  for (let i = 0; i < 5; i += 1) events.push({ seq: events.length + 1, type: "agent.started", agent: `a${i}`, inv: `a${i}.1` });
  events.push({ seq: 7, type: "agent.finished", agent: "a2", inv: "a2.1" });
  const state = run(events);
  assert.deepEqual([...foldable(state, visibleLanes(state))], ["a2.1"]);
  assert.equal(foldable(state, visibleLanes(state).slice(0, 4)).size, 0);
});

test("question, answer and tokens come from any shape", () => {
  const state = run(script());
  assert.equal(question(state.input), "Größte Region? 🙂");
  assert.equal(question("a\n b"), "a b");
  assert.deepEqual(answer(state).artifacts.map((item) => item.name), ["t.csv"]);
  assert.equal(answer(state).text, "Zürich");
  assert.equal(answer({ ...state, output: [1] }).text, "[\n  1\n]");
  assert.deepEqual(tokens(state), { used: 11, limit: undefined });
});
