/**
 * Answers about a folded state: a state goes in, what the page shows of it comes out as plain values.
 * Every function is pure; times are differences of event times.
 * It does not know the DOM, and it changes nothing.
 */
import { duration, oneLine } from "./format.js";

const MAIN = ["question", "prompt", "query", "message", "task", "text", "input", "topic"];
const ANSWER = ["answer", "reply", "text", "summary", "result", "output", "message", "content"];

/** The person's words out of any input: a string, or the likeliest string of an object. */
export function question(input) {
  return oneLine(mainText(input, MAIN));
}

function mainText(value, names) {
  if (typeof value === "string") return value;
  if (value === null || typeof value !== "object") return value === undefined || value === null ? "" : String(value);
  for (const name of names) if (typeof value[name] === "string" && value[name]) return value[name];
  const found = Object.values(value).find((inner) => typeof inner === "string" && inner);
  return found || JSON.stringify(value);
}

/** The output split into the part that answers and the rest: `{text, rest: [[key, value]…], artifacts: [item…]}`. */
export function answer(state) {
  const { output } = state;
  const byId = new Map();
  for (const lane of state.lanes) for (const item of lane.items) if (item.kind === "artifact") byId.set(item.id, item);
  if (output === null || typeof output !== "object" || Array.isArray(output)) {
    const text = output === undefined || output === null ? "" : typeof output === "string" ? output : JSON.stringify(output, null, 2);
    return { text, rest: [], artifacts: [] };
  }
  const key = ANSWER.find((name) => typeof output[name] === "string" && output[name]);
  const artifacts = new Map();
  const rest = [];
  for (const [name, value] of Object.entries(output)) {
    if (name === key || value === null || value === "") continue;
    const ids = (Array.isArray(value) ? value : [value]).filter((id) => typeof id === "string" && byId.has(id));
    for (const id of ids) artifacts.set(id, byId.get(id));
    if (!ids.length && !(Array.isArray(value) && !value.length)) rest.push([name, value]);
  }
  return { text: key ? output[key] : "", rest, artifacts: [...artifacts.values()] };
}

/** Lanes worth a column: those with something in them, and the silent ones only while they are nobody's caller.
 * A caller that only says that its callee failed says nothing new. */
export function visibleLanes(state) {
  const callers = new Set();
  for (const inv of Object.values(state.invs)) if (inv.parent && state.invs[inv.parent]) callers.add(state.invs[inv.parent].lane);
  return state.lanes.filter((lane, index) => !callers.has(index) || lane.items.some((item) => item.kind !== "failure"));
}

/** What the head of a lane says: `{text, tone}`; `now` is the event time it is, in ms. */
export function laneHead(state, lane, now) {
  const inv = state.invs[lane.inv];
  if (!inv) return { text: "", tone: "" };
  if (inv.status === "failed") return { text: "failed", tone: "bad" };
  if (inv.status === "done") return { text: `done · ${duration(inv.until - inv.began)}`, tone: "done" };
  const lasting = (since) => (now - since >= 1000 ? ` · ${duration(now - since)}` : "");
  if (inv.wait === "human") return { text: `waiting for you${lasting(inv.since)}`, tone: "warn" };
  const last = openItem(lane, inv.id);
  if (last?.kind === "tool") {
    const { progress } = last;
    const part = progress && (progress.message || fraction(progress));
    return { text: `${last.status === "open" ? "writing" : "running"} ${last.name}${part ? ` · ${part}` : ""}${lasting(last.at)}`, tone: "busy" };
  }
  if (last?.kind === "text") return { text: "writing", tone: "busy" };
  if (last?.kind === "thinking") return { text: "thinking", tone: "busy" };
  const children = Object.values(state.invs).filter((child) => child.parent === inv.id && child.status === "running");
  if (children.length) {
    const names = [...new Set(children.map((child) => child.agent))].join(", ");
    return { text: `waiting · ${names}${lasting(Math.max(...children.map((child) => child.began)))}`, tone: "wait" };
  }
  if (inv.wait) return { text: `waiting · ${WAITS[inv.wait] || inv.wait}${lasting(inv.since)}`, tone: "wait" };
  if (inv.progress) return { text: [inv.progress.message, fraction(inv.progress)].filter(Boolean).join(" · ") || "working", tone: "busy" };
  return { text: "working", tone: "busy" };
}

const WAITS = { llm: "model", tool: "tool", slot: "a free slot", agent: "another agent" };

function openItem(lane, inv) {
  for (let i = lane.items.length - 1; i >= 0; i -= 1) {
    const item = lane.items[i];
    if (item.inv !== inv) return null;
    if (item.kind === "tool" && (item.status === "open" || item.status === "running")) return item;
    if ((item.kind === "text" || item.kind === "thinking") && item.open) return item;
  }
  return null;
}

function fraction(progress) {
  if (!(progress.total > 0) || progress.done === undefined || progress.done === null) return "";
  return `${Math.round((100 * progress.done) / progress.total)} %`;
}

/** Tokens as `{used, limit}`, from the budget while it runs and from the usage at the end; null when nobody said. */
export function tokens(state) {
  const { usage, budget } = state;
  const used = usage ? (usage.input_tokens || 0) + (usage.output_tokens || 0) : budget?.used?.tokens;
  if (!used) return null;
  return { used, limit: budget?.limit?.tokens };
}

/** With more than four lanes, those that have ended fold to a strip while others still work. */
export function foldable(state, lanes) {
  if (lanes.length <= 4 || !["running", "waiting"].includes(state.status)) return new Set();
  return new Set(lanes.filter((lane) => state.invs[lane.inv]?.status === "done").map((lane) => lane.id));
}
