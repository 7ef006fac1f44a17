/** A small run with everything that the page folds: three agents, two rounds, a superseded call, a picture, an output. */
export const RUN = "run0123456789abcdefghi";

export function script() {
  const events = [];
  const seqs = {};
  const emit = (type, payload = {}, agent = "", inv = "") => {
    const envelope = { seq: events.length + 1, at: 1_700_000_000_000 + events.length * 10, type };
    if (inv) Object.assign(envelope, { agent, inv, agent_seq: (seqs[inv] = (seqs[inv] || 0) + 1) });
    events.push({ ...envelope, ...payload });
  };
  const as = (inv) => (type, payload) => emit(type, payload, inv.replace(/\.\d+$/, ""), inv);
  const steps = (status) => [{ id: "s1", title: "Sum", status }, { id: "s2", title: "Plot" }];

  emit("run.started", { run: RUN, team: "analyst", input: { question: "Größte Region? 🙂" } });
  const root = as("analyst.1");
  root("agent.started", {});
  const planner = as("planner.1");
  planner("agent.started", { parent: "analyst.1", role: "planner" });
  planner("agent.waiting", { on: "llm" });
  planner("thinking.started", { block: "planner.1.1" });
  planner("thinking.delta", { block: "planner.1.1", text: "Two " });
  planner("thinking.delta", { block: "planner.1.1", text: "steps." });
  planner("thinking.finished", { block: "planner.1.1" });
  planner("agent.finished", {});
  root("plan.updated", { steps: steps("active") });
  for (const round of [1, 2]) {
    const inv = `executor.${round}`;
    const executor = as(inv);
    executor("agent.started", { parent: "analyst.1", role: "executor", task: { id: "s1" } });
    executor("tool.started", { call: `${inv}.1`, name: "python" });
    executor("tool.delta", { call: `${inv}.1`, text: "print(" });
    executor("tool.delta", { call: `${inv}.1`, text: `${round})` });
    executor("tool.called", { call: `${inv}.1`, arguments: { code: `print(${round})` } });
    executor("tool.output", { call: `${inv}.1`, channel: "stdout", text: `${round}` });
    executor("tool.output", { call: `${inv}.1`, channel: "stdout", text: "\n" });
    executor("tool.finished", { call: `${inv}.1`, result: round });
    executor("artifact.created", { id: `${inv}.a`, mime: "text/csv", name: "t.csv", data: "a,b\n1,2\n" });
    executor("text.started", { block: `${inv}.2` });
    executor("text.delta", { block: `${inv}.2`, text: "Zürich " });
    executor("text.delta", { block: `${inv}.2`, text: "gewinnt ✓" });
    executor("text.finished", { block: `${inv}.2` });
    executor("agent.finished", {});
    const verifier = as(`verifier.${round}`);
    verifier("agent.started", { parent: "analyst.1", role: "verifier", task: { id: "s1" } });
    verifier("verdict.given", { ok: round === 2, feedback: `round ${round}`, step: "s1" });
    verifier("agent.finished", {});
  }
  emit("attempt.superseded", { of: "executor.1", attempt: 1, ids: ["executor.1.1"] });
  root("state.delta", { ops: [{ op: "add", path: "/best", value: "Zürich" }] });
  root("plan.updated", { steps: steps("done") });
  root("agent.finished", {});
  emit("run.finished", { output: { answer: "Zürich", picture: "executor.2.a" }, usage: { input_tokens: 5, output_tokens: 6 } });
  return events;
}

export const frame = (event, retry = "") => `${retry}id: ${RUN}.inc001.${event.seq}\ndata: ${JSON.stringify(event)}\n\n`;

/** Neighbouring deltas of one block as one event, as the wire may send them. */
export function coalesced(events) {
  const out = [];
  for (const event of events) {
    const last = out[out.length - 1];
    const same = last && /\.delta$/.test(event.type) && event.text !== undefined && last.type === event.type && last.block === event.block && last.call === event.call;
    if (same) out[out.length - 1] = { ...event, first_seq: last.first_seq || last.seq, text: last.text + event.text };
    else out.push(event);
  }
  return out;
}
