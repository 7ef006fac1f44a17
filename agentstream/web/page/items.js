/**
 * The items of a lane as elements: an item goes in, a view `{el, update}` comes out that follows it as it changes.
 * Updates append what is new instead of building again, and go back as well as forth, for time travel does both.
 * It does not know lanes, the stream or what is live.
 */
import { artifactBody, code, download, kindOf } from "./artifacts.js";
import { Growing, h, say } from "./dom.js";
import { clip, duration, plain, pretty, size } from "./format.js";
import { answerOf, choicesOf, hintOf } from "./schema.js";
import { codeOf, streamed } from "./text.js";

/** @param {{run: () => string, onSize: () => void, onZoom: (src: string, name: string) => void, onAnswer: (request: string, value: unknown) => Promise<void>}} hooks */
export function viewOf(item, hooks) {
  const view = (MAKERS[item.kind] || unknown)(item, hooks);
  const foot = h("p", { class: "superseded" });
  return {
    el: view.el,
    update(now) {
      view.update?.(now);
      view.el.classList.toggle("old", !!now.old);
      if (now.old) {
        say(foot, [`superseded${now.old.by ? ` by ${now.old.by}` : ""}`, now.old.why].filter(Boolean).join(" · "));
        if (!foot.isConnected) (view.head || view.el).append(foot);
      } else foot.remove();
    },
  };
}

function prose(className) {
  return () => {
    const text = new Growing();
    const el = h("div", { class: className, data: { testid: className } }, h("span", {}, text.node));
    return {
      el,
      update(item) {
        text.set(item.text);
        el.classList.toggle("caret", item.open);
      },
    };
  };
}

function typedView() {
  const text = new Growing();
  const pre = h("pre", {}, text.node);
  return {
    el: h("details", { class: "typed" }, h("summary", {}, "typed answer"), pre),
    update(item) {
      text.set(item.text);
    },
  };
}

function card(title, className = "") {
  const name = h("span", { class: "name" }, title);
  const small = h("small", {});
  const head = h("h3", {}, name, small);
  return { el: h("div", { class: `card ${className}` }, head), head, name, small };
}

// --- tool calls -------------------------------------------------------------------------------------------------------

function toolView(item) {
  const { el, head, name, small } = card(item.name, "tool");
  const source = h("div", { class: "source" });
  const bar = h("progress", {});
  const outputs = h("div", {});
  const result = h("div", {});
  el.append(source, bar, outputs, result);
  const draw = { source: sourceOf(source, item.name), outputs: outputsOf(outputs), result: resultOf(result) };
  return {
    el,
    head,
    update(now) {
      say(name, now.name);
      say(small, statusOf(now));
      el.dataset.status = now.status;
      draw.source(now);
      bar.hidden = !(now.status === "running" && now.progress);
      if (!bar.hidden && now.progress.total > 0) {
        bar.max = now.progress.total;
        bar.value = now.progress.done || 0;
      } else bar.removeAttribute("value");
      draw.outputs(now.outputs);
      draw.result(now);
    },
  };
}

function statusOf(item) {
  if (item.status === "open") return "writing…";
  if (item.status === "running") return item.progress?.message || "running…";
  const took = item.until ? duration(item.until - item.at) : "";
  return item.status === "done" ? took : [item.status, took].filter(Boolean).join(" · ");
}

/** Streams what the model writes; once the arguments are complete, shows them as code or as JSON. */
function sourceOf(box, toolName) {
  const growing = new Growing();
  const live = h("pre", {}, growing.node);
  let shown = null;
  return (item) => {
    if (item.args === undefined) {
      if (shown !== "live") box.replaceChildren(live);
      shown = "live";
      live.hidden = !item.text;
      growing.set(streamed(item.text));
      return;
    }
    if (shown === item.args) return;
    shown = item.args;
    const { code: text, rest } = codeOf(item.args);
    const parts = [];
    if (text !== null) parts.push(code(text, isPython(text, toolName)));
    if (rest !== null && rest !== undefined) parts.push(code(pretty(rest), false));
    box.replaceChildren(...parts);
  };
}

const isPython = (text, name) => /python|code|exec|run/i.test(name) || /^\s*(import|from|def|#)\b/m.test(text);

function outputsOf(box) {
  const views = [];
  return (outputs) => {
    while (views.length > outputs.length) views.pop().pre.remove();
    outputs.forEach(({ channel, text }, i) => {
      let view = views[i];
      if (!view || view.channel !== channel) {
        const growing = new Growing();
        const pre = h("pre", { class: `out ${channel === "stderr" ? "err" : ""}`, "aria-label": channel }, growing.node);
        if (view) view.pre.replaceWith(pre);
        else box.append(pre);
        view = { channel, growing, pre };
        views[i] = view;
      }
      view.growing.set(text);
      if (text.length > 400) view.pre.scrollTop = view.pre.scrollHeight;
    });
  };
}

function resultOf(box) {
  let shown = null;
  return (item) => {
    const key = item.error || item.result;
    if (shown === key) return;
    shown = key;
    if (item.error) box.replaceChildren(h("p", { class: "note bad" }, item.error));
    else if (item.result === undefined || item.result === null || item.result === "") box.replaceChildren();
    else {
      const line = plain(item.result);
      const short = line.length <= 160 && !line.includes("\n");
      box.replaceChildren(
        short ? h("pre", { class: "out result" }, line) : h("details", { class: "result" }, h("summary", {}, `result · ${size(line.length)}`), code(pretty(item.result), false)),
      );
    }
  };
}

// --- the rest ---------------------------------------------------------------------------------------------------------

function artifactView(item, hooks) {
  const { el, head, small } = card(item.name, "artifact");
  small.append([kindOf(item), item.size ? size(item.size) : ""].filter(Boolean).join(" · "), " · ", download(hooks.run(), item, "save"));
  el.append(artifactBody(hooks.run(), item, hooks));
  return { el, head };
}

function verdictView(item) {
  const word = item.ok ? "Accepted." : "Not accepted.";
  const about = [item.title, item.round > 1 ? `round ${item.round}` : "", typeof item.score === "number" ? `score ${+item.score.toFixed(3)}` : ""];
  return {
    el: h("div", { class: `verdict ${item.ok ? "ok" : "bad"}`, data: { testid: "verdict" } },
      h("b", {}, word), " ", item.text, h("small", {}, about.filter(Boolean).join(" · "))),
  };
}

function markView(item) {
  const words = [item.inv, item.title, item.round > 1 ? `round ${item.round}` : "", item.attempt > 1 ? `attempt ${item.attempt}` : ""];
  return { el: h("div", { class: "mark" }, h("span", {}, words.filter(Boolean).join(" · "))) };
}

function failureView(item) {
  return { el: h("div", { class: "failure" }, h("b", {}, item.code === "try" ? "Try failed." : `Failed: ${item.code}.`), " ", item.text) };
}

function askView(item, hooks) {
  const { el, head, small } = card(item.ask === "approval" ? "Approval needed" : "Question to you", "ask");
  el.dataset.testid = "ask";
  const reply = h("p", { class: "note" });
  const form = answerForm(item, hooks, (words) => say(reply, words));
  el.append(h("p", { class: "words" }, item.text), form, reply);
  return {
    el,
    head,
    update(now) {
      say(small, now.closed || "open");
      const open = !now.closed;
      if (open && !form.isConnected) reply.before(form);
      if (!open) form.remove();
      say(reply, now.closed === "answered" ? `Answer: ${plain(now.answer)}` : open ? "The run waits for an answer." : "Closed without an answer.");
    },
  };
}

/** What a person answers with: two buttons for leave, one for each choice, else a box. `tell` says what went wrong. */
function answerForm(item, hooks, tell) {
  const form = h("form", { class: "answer" });
  const send = async (value) => {
    const parts = [...form.elements];
    parts.forEach((part) => (part.disabled = true));
    try {
      await hooks.onAnswer(item.id, value);
      tell("Sent.");
    } catch (error) {
      parts.forEach((part) => (part.disabled = false));
      tell(error.message);
    }
  };
  const button = (words, value, primary) => {
    const made = h("button", { type: "button", class: primary ? "go" : "", data: { testid: "answer-choice" } }, words);
    made.addEventListener("click", () => send(value));
    return made;
  };
  const choices = choicesOf(item);
  if (choices) form.append(...choices.map(([words, value], n) => button(words, value, n === 0)));
  else {
    const box = h("textarea", { rows: "1", "aria-label": "Your answer", placeholder: hintOf(item.schema), data: { testid: "answer" } });
    form.append(box, h("button", { type: "submit", class: "go", data: { testid: "answer-send" } }, "Answer"));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      try {
        send(answerOf(item.schema, box.value));
      } catch (error) {
        tell(error.message);
      }
    });
    box.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        form.requestSubmit();
      }
    });
  }
  return form;
}

function customView(item) {
  const { el, head, small } = card(item.name, "custom");
  small.append("custom");
  const text = pretty(item.value) ?? "";
  el.append(text.length > 600 ? h("details", {}, h("summary", {}, clip(plain(item.value), 80)), code(text, false)) : code(text, false));
  return { el, head };
}

const unknown = (item) => ({ el: h("p", { class: "note" }, item.kind) });

const MAKERS = {
  text: prose("say"),
  thinking: prose("think"),
  typed: typedView,
  tool: toolView,
  artifact: artifactView,
  verdict: verdictView,
  mark: markView,
  failure: failureView,
  ask: askView,
  custom: customView,
};
