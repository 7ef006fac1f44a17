/**
 * What stands above the lanes: a folded state goes in; question, figures, plan, notes and result stand on the page.
 * Each part is redrawn only when the part of the state it shows is another one.
 * It does not know the stream; the connection's figures are told to it.
 */
import { artifactBody } from "./artifacts.js";
import { $, attribute, h, say } from "./dom.js";
import { clip, pretty, short } from "./format.js";
import { answer, question, tokens } from "./select.js";

const ICONS = { done: "✓", failed: "✕", skipped: "–" };
const WORDS = { pending: "to do", active: "under way", done: "done", failed: "failed", skipped: "skipped" };

export class Head {
  #plan = null;
  #output = null;
  #hooks;

  constructor(hooks) {
    this.#hooks = hooks;
  }

  clear() {
    this.#plan = null;
    this.#output = null;
    $("plan").hidden = true;
    $("output").hidden = true;
  }

  /** `state` is what is shown, `live` the newest; they differ in time travel. */
  render(state, live) {
    const words = question(live.input);
    say($("question"), words);
    attribute($("question"), "title", words);
    say($("seq"), String(live.seq));
    const spent = tokens(state);
    $("tokens-pill").hidden = !spent;
    if (spent) {
      say($("tokens"), short(spent.used));
      say($("tokens-limit"), spent.limit ? `/ ${short(spent.limit)}` : "");
    }
    $("gaps-pill").hidden = !live.gaps;
    say($("gaps"), String(live.gaps));
    if (state.plan !== this.#plan) this.#drawPlan(state.plan);
    this.#drawOutput(state);
  }

  #drawPlan(plan) {
    this.#plan = plan;
    const root = $("plan");
    root.hidden = !plan.length;
    root.replaceChildren(...plan.map((step, i) =>
      h("li", { class: `step ${step.status}`, title: step.title, data: { testid: "plan-step", status: step.status, step: step.id } },
        h("span", { class: "n", "aria-hidden": "true" }, ICONS[step.status] || i + 1),
        h("span", { class: "t" }, clip(step.title, 90)),
        h("span", { class: "sr" }, `, ${WORDS[step.status] || step.status}`),
        step.round > 1 ? h("em", {}, `round ${step.round}`) : null)));
    const active = root.querySelector(".active");
    if (active) root.scrollLeft = active.offsetLeft - root.offsetLeft - 24;
  }

  #drawOutput(state) {
    const shown = state.status === "finished" ? state.output ?? null : state.status === "failed" ? state.failure : state.status === "stopped" ? state.cause : undefined;
    const root = $("output");
    if (shown === this.#output) return;
    this.#output = shown;
    root.hidden = shown === undefined;
    if (shown === undefined) return root.replaceChildren();
    attribute(root, "data-status", state.status);
    const parts = { finished: () => finished(state, this.#hooks), failed: () => failed(state), stopped: () => stopped(state) }[state.status]();
    const toggle = h("button", { type: "button", class: "ghost fold", "aria-expanded": "true", "aria-label": "Fold the result", title: "Fold or unfold" }, "⌃");
    const body = h("div", { class: "inner" }, parts);
    toggle.addEventListener("click", () => {
      body.hidden = !body.hidden;
      toggle.setAttribute("aria-expanded", String(!body.hidden));
    });
    const title = { finished: "Result", failed: "The run failed", stopped: "The run was stopped" }[state.status];
    root.replaceChildren(h("header", {}, h("h2", {}, title), toggle), body);
  }
}

function finished(state, hooks) {
  const { text, rest, artifacts } = answer(state);
  const facts = rest.map(([name, value]) => {
    const simple = typeof value !== "object" && String(value).length < 200;
    return [h("dt", {}, name.replace(/_/g, " ")), h("dd", {}, simple ? String(value) : h("details", {}, h("summary", {}, "show"), h("pre", {}, pretty(value))))];
  });
  return [
    h("div", { class: "answer", data: { testid: "output" } }, text || (rest.length || artifacts.length ? "" : "The run finished without an output.")),
    facts.length ? h("dl", {}, facts) : null,
    artifacts.length ? h("div", { class: "gallery" }, artifacts.map((item) => artifactBody(state.run, item, { ...hooks, gallery: true }))) : null,
  ];
}

function failed(state) {
  const { code, message, retryable } = state.failure;
  return [h("div", { class: "answer", data: { testid: "output" } }, h("b", {}, code), message ? ` — ${message}` : ""), retryable ? h("p", { class: "note" }, "Running it again may help.") : null];
}

const CAUSES = {
  user_stop: "somebody pressed Stop", client_gone: "its reader went away", deadline: "its time was over", idle: "nothing happened for too long",
  budget: "its budget was used up", replaced: "a newer run took its place", shutdown: "the server shut down",
};

function stopped(state) {
  return [h("div", { class: "answer", data: { testid: "output" } }, `Stopped because ${CAUSES[state.cause] || state.cause}. What was made until then stays below.`, state.detail ? ` ${state.detail}` : "")];
}
