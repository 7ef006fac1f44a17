/**
 * The run as one pure fold: a state and the next event go in, the next state comes out.
 * States share everything that did not change, so keeping an old one costs nothing and comparing two is comparing references.
 * It does not know how events arrive, what time it is, or how anything is drawn.
 *
 * Lanes: an invocation takes over the lane of its agent when the one before it has ended, and opens another lane
 * when it runs beside it. Items of a lane are only ever appended or replaced in place, never moved.
 */
import { patch } from "./patch.js";

export const TERMINAL = new Set(["run.finished", "run.failed", "run.stopped"]);

const KNOWN = ["planner", "executor", "verifier"];
const PALETTE = 8;

export const EMPTY = Object.freeze({
  run: "", team: "", input: undefined, status: "idle", attempt: 1,
  seq: 0, at: 0, began: 0, count: 0, gaps: 0,
  lanes: [], invs: {}, accents: {}, plan: [], rejected: {}, notes: [],
  hold: null, output: undefined, failure: null, cause: "", usage: null, budget: null, document: undefined,
});

/** The state after `event`. A duplicate gives back the very same state; a `reset` starts from nothing. */
export function fold(state, event) {
  if (event.type === "reset") {
    const first = event.first > 0 ? event.first : 1;
    const note = { id: "reset", text: `Replayed from event ${first}: ${event.reason || "the position was lost"}`, tone: "warn" };
    return { ...EMPTY, run: state.run, seq: first - 1, notes: [note] };
  }
  if (!Number.isSafeInteger(event.seq) || event.seq <= state.seq) return state;
  const base = { ...state, seq: event.seq, at: event.at || state.at, count: state.count + 1 };
  if ((event.first_seq || event.seq) !== state.seq + 1) base.gaps += 1;
  if (!base.began) base.began = base.at;
  const next = { ...base };
  try {
    if (event.inv) settle(next, event);
    HANDLERS.get(event.type)?.(next, event);
    return next;
  } catch (error) {
    // A payload that is not what its type says (another version's, a relay's): said, counted as seen, and passed over.
    note(base, event, `Event ${event.seq} (${event.type}) could not be read: ${error.message}`, "warn");
    return base;
  }
}

const own = (table, key) => (Object.hasOwn(table, key) ? table[key] : undefined);

// --- invocations and lanes --------------------------------------------------------------------------------------------

/** An invocation that emits again does not wait any more; one that was never seen (a trimmed log) gets its lane now. */
function settle(next, event) {
  const inv = own(next.invs, event.inv);
  if (!inv) {
    if (event.type !== "agent.started") open(next, event);
  } else if (inv.wait && event.type !== "agent.waiting") {
    setInv(next, event.inv, { wait: "" });
  }
}

function setInv(next, id, change) {
  next.invs = { ...next.invs, [id]: { ...next.invs[id], ...change } };
}

function open(next, event) {
  const agent = event.agent || event.inv.replace(/\.\d+$/, "");
  const role = event.role || "";
  const step = stepOf(next, event.task);
  const round = step ? 1 + Object.values(next.invs).filter((inv) => inv.agent === agent && inv.step === step.id).length : 1;
  let index = next.lanes.findIndex((lane) => lane.agent === agent && next.invs[lane.inv].status !== "running");
  if (index < 0) {
    index = next.lanes.length;
    next.accents = own(next.accents, agent) ? next.accents : { ...next.accents, [agent]: accent(next.accents, agent, role) };
    next.lanes = [...next.lanes, { id: event.inv, agent, role, accent: next.accents[agent], inv: event.inv, items: [] }];
  } else {
    setLane(next, index, { inv: event.inv, role: role || next.lanes[index].role });
  }
  next.invs = {
    ...next.invs,
    [event.inv]: {
      id: event.inv, agent, role, lane: index, parent: event.parent || "", status: "running", wait: "", progress: null,
      began: next.at, since: next.at, until: 0, step: step ? step.id : "", round, attempt: event.attempt || 1,
    },
  };
  if (step) setStep(next, step.id, { round: Math.max(step.round, round), status: step.status === "pending" ? "active" : step.status });
  replaceEarlier(next, event, agent, step, round);
  if (next.lanes[index].items.length) {
    push(next, event, { kind: "mark", id: `mark:${event.inv}`, title: step ? step.title : "", round, attempt: event.attempt || 1 });
  }
}

/** Says by what the superseded was superseded: the named successor, or the next round of a step that was rejected. */
function replaceEarlier(next, event, agent, step, round) {
  const by = event.replaces ? event.inv : `round ${round}`;
  const judge = step && round > 1 ? own(next.rejected, step.id) || next.rejected["*"] : "";
  const rejected = !!judge && judge !== agent; // a judge's own words are not what it rejected
  for (const inv of Object.values(next.invs)) {
    if (inv.id === event.inv) continue;
    if (inv.id === event.replaces) {
      editItems(next, inv.lane, (item) => (item.inv === inv.id && item.old && !item.old.by ? { old: { ...item.old, by } } : null));
    } else if (rejected && inv.agent === agent && inv.step === step.id) {
      editItems(next, inv.lane, (item) => (item.inv === inv.id && item.kind !== "mark" && !(item.old && item.old.by) ? { old: { by, why: "" } } : null));
    }
  }
}

/** One accent an agent: the known roles have theirs, others take the next free one in order of appearance. */
function accent(taken, agent, role) {
  const used = new Set(Object.values(taken));
  for (const name of [agent, role]) if (KNOWN.includes(name) && !used.has(name)) return name;
  let n = 0;
  while (n < PALETTE - 1 && used.has(`a${n + 1}`)) n += 1;
  return used.has(`a${n + 1}`) ? `a${(Object.keys(taken).length % PALETTE) + 1}` : `a${n + 1}`;
}

function setLane(next, index, change) {
  next.lanes = next.lanes.slice();
  next.lanes[index] = { ...next.lanes[index], ...change };
}

// --- items ------------------------------------------------------------------------------------------------------------

function push(next, event, item) {
  const inv = next.invs[event.inv];
  if (!inv) return;
  const items = next.lanes[inv.lane].items.slice();
  items.push({ inv: event.inv, at: next.at, seq: event.seq, old: null, ...item });
  setLane(next, inv.lane, { items });
}

/** Changes the item `id` of the event's lane; `make` gives it when it was never opened (its start was trimmed). */
function edit(next, event, id, change, make) {
  const inv = next.invs[event.inv];
  if (!inv) return;
  const { items } = next.lanes[inv.lane];
  for (let i = items.length - 1; i >= 0; i -= 1) {
    if (items[i].id !== id) continue;
    const copy = items.slice();
    copy[i] = { ...items[i], ...change(items[i]) };
    setLane(next, inv.lane, { items: copy });
    return;
  }
  if (make) {
    const item = make();
    push(next, event, { ...item, ...change(item) });
  }
}

function editItems(next, index, change) {
  let changed = false;
  const items = next.lanes[index].items.map((item) => {
    const part = change(item);
    if (!part) return item;
    changed = true;
    return { ...item, ...part };
  });
  if (changed) setLane(next, index, { items });
}

const block = (kind, id) => ({ kind, id, text: "", open: true });
const call = (id, name) => ({
  kind: "tool", id, name: name || "tool", text: "", args: undefined, outputs: [], result: undefined,
  status: "open", progress: null, error: "", until: 0,
});

function blocks(kind) {
  return {
    // The JSON of a typed answer is for programs: shown folded.
    [`${kind}.started`]: (next, e) => push(next, e, block(e.role === "structured" ? "typed" : kind, e.block)),
    [`${kind}.delta`]: (next, e) => edit(next, e, e.block, (item) => ({ text: item.text + (e.text || "") }), () => block(kind, e.block)),
    [`${kind}.finished`]: (next, e) => edit(next, e, e.block, () => ({ open: false })),
  };
}

function tool(change) {
  return (next, e) => edit(next, e, e.call, (item) => change(item, e, next), () => call(e.call));
}

function output(item, e) {
  const channel = e.channel || "stdout";
  const outputs = item.outputs.slice();
  const last = outputs[outputs.length - 1];
  if (last && last.channel === channel) outputs[outputs.length - 1] = { channel, text: last.text + (e.text || "") };
  else outputs.push({ channel, text: e.text || "" });
  return { outputs };
}

// --- plan -------------------------------------------------------------------------------------------------------------

function stepOf(next, task) {
  const id = task && typeof task === "object" ? task.id || (task.step && task.step.id) : undefined;
  return id === undefined ? undefined : next.plan.find((step) => step.id === id);
}

function setStep(next, id, change) {
  next.plan = next.plan.map((step) => (step.id === id ? { ...step, ...change } : step));
}

/** Recorded steps are many; only those that the plan lists show in it, by id or by name. */
function planned(status) {
  return (next, e) => {
    const step = next.plan.find((s) => s.id === e.step || (e.name && (s.id === e.name || s.title === e.name)));
    if (step) setStep(next, step.id, { status, round: Math.max(step.round, e.attempt || 1) });
  };
}

// --- the table --------------------------------------------------------------------------------------------------------

const end = (status) => (next, e) => setInv(next, e.inv, { status, until: next.at, wait: "", progress: null });
const note = (next, e, text, tone) => {
  next.notes = [...next.notes, { id: `note:${e.seq}`, text, tone }];
};

const HANDLERS = new Map(Object.entries({
  "run.started": (next, e) => Object.assign(next, { run: e.run, team: e.team, input: e.input, status: "running", attempt: e.attempt || 1 }),
  "run.waiting": (next, e) => Object.assign(next, { status: "waiting", hold: { on: e.on, position: e.position } }),
  "run.attempt": (next, e) => {
    Object.assign(next, { status: "running", attempt: e.attempt, hold: null });
    note(next, e, `Attempt ${e.attempt}: another worker goes on (${e.reason})`, "warn");
  },
  "run.finished": (next, e) => Object.assign(next, { status: "finished", output: e.output, usage: e.usage || null, hold: null }),
  "run.failed": (next, e) =>
    Object.assign(next, { status: "failed", hold: null, failure: { code: e.code, message: e.message || "", retryable: !!e.retryable } }),
  "run.stopped": (next, e) => Object.assign(next, { status: "stopped", hold: null, cause: e.cause, detail: e.detail || "" }),

  "agent.started": (next, e) => {
    if (next.hold) Object.assign(next, { hold: null, status: "running" });
    if (!own(next.invs, e.inv)) open(next, e);
  },
  "agent.finished": end("done"),
  "agent.failed": (next, e) => {
    end("failed")(next, e);
    push(next, e, { kind: "failure", id: `failure:${e.inv}`, code: e.code, text: e.message || "" });
  },
  "agent.waiting": (next, e) => setInv(next, e.inv, { wait: e.on, since: next.at }),
  "agent.progress": (next, e) => setInv(next, e.inv, { progress: { message: e.message || "", done: e.done, total: e.total } }),

  "plan.updated": (next, e) => {
    const before = new Map(next.plan.map((step) => [step.id, step]));
    next.plan = e.steps.map((step) => ({ ...step, status: step.status || "pending", round: before.get(step.id)?.round || 1 }));
  },
  "step.started": planned("active"),
  "step.finished": planned("done"),
  "step.failed": planned("failed"),
  "verdict.given": (next, e) => {
    const step = next.plan.find((s) => s.id === e.step);
    next.rejected = { ...next.rejected, [e.step || "*"]: e.ok ? "" : e.agent };
    push(next, e, {
      kind: "verdict", id: `verdict:${e.seq}`, ok: !!e.ok, text: e.feedback || "", score: e.score,
      title: step ? step.title : e.step || "", round: step ? step.round : 1,
    });
  },

  ...blocks("text"),
  ...blocks("thinking"),

  "tool.started": (next, e) => push(next, e, call(e.call, e.name)),
  "tool.delta": tool((item, e) => ({ text: item.text + (e.text || "") })),
  "tool.called": tool((item, e) => ({ args: e.arguments === undefined ? null : e.arguments, status: "running" })),
  "tool.progress": tool((item, e) => ({ progress: { message: e.message || "", done: e.done, total: e.total } })),
  "tool.output": tool(output),
  "tool.finished": tool((item, e, next) => ({ status: "done", result: e.result, until: next.at, progress: null })),
  "tool.failed": tool((item, e, next) => ({ status: "failed", error: [e.code, e.message].filter(Boolean).join(": "), until: next.at })),
  "tool.denied": tool((item, e, next) => ({
    status: "denied", error: `Denied${e.by ? ` by ${e.by}` : ""}${e.reason ? `: ${e.reason}` : ""}`, until: next.at,
  })),

  "artifact.created": (next, e) =>
    push(next, e, { kind: "artifact", id: e.id, mime: e.mime, name: e.name || e.id, size: e.size || 0, data: e.data, uri: e.uri }),

  "state.snapshot": (next, e) => Object.assign(next, { document: e.state }),
  "state.delta": (next, e) => Object.assign(next, { document: patch(next.document === undefined ? {} : next.document, e.ops) }),

  "input.requested": (next, e) => {
    push(next, e, { kind: "ask", id: e.request, ask: e.kind || "question", text: e.prompt || "", schema: e.schema, expires: e.expires, answer: undefined, closed: "" });
    if (next.invs[e.inv]) setInv(next, e.inv, { wait: "human", since: next.at });
  },
  "input.received": (next, e) => everywhere(next, [e.request], () => ({ answer: e.value === undefined ? null : e.value, closed: "answered" })),
  "input.expired": (next, e) => everywhere(next, [e.request], () => ({ closed: e.reason || "expired" })),

  "llm.try_failed": (next, e) => {
    const why = `try ${e.try || 1} failed: ${e.reason || "no reason given"}`;
    if (e.block) everywhere(next, [e.block], () => ({ open: false, old: { by: `try ${(e.try || 1) + 1}`, why } }));
    else push(next, e, { kind: "failure", id: `try:${e.seq}`, code: "try", text: why });
  },
  "attempt.superseded": (next, e) => everywhere(next, e.ids || [], (item) => ({ open: false, old: item.old || { by: "", why: `attempt ${e.attempt || 1} does not count` } })),

  "budget.updated": (next, e) => Object.assign(next, { budget: { used: e.used || {}, limit: e.limit || {} } }),
  "budget.low": (next, e) => note(next, e, `Budget of ${e.of} is low: ${e.used} of ${e.limit}`, "warn"),
  "budget.exceeded": (next, e) => note(next, e, `Budget of ${e.of} is used up: ${e.used} of ${e.limit}`, "bad"),
  custom: (next, e) => push(next, e, { kind: "custom", id: `custom:${e.seq}`, name: e.name, value: e.value }),
}));

/** Changes items by id in whatever lane they are: run-level events name things without naming their lane. */
function everywhere(next, ids, change) {
  const wanted = new Set(ids);
  if (!wanted.size) return;
  for (let i = 0; i < next.lanes.length; i += 1) editItems(next, i, (item) => (wanted.has(item.id) ? change(item) : null));
}
