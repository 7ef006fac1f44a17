/**
 * The ruler: a recording goes in, all its events over `seq` stand in one strip, a row a lane, with a play head that people drag.
 * The strip is a canvas drawn once a frame at most; the play head is a native range input, so keyboard and screen readers work.
 * It does not know what a state looks like at a place; it only says which place was chosen.
 */
import { h, say } from "./dom.js";

const INSET = 5; // half the width of the thumb: seq 1 and the last lie under its middle
const TALL = 30;

export class Ruler {
  #canvas = h("canvas", { "aria-hidden": "true" });
  #range = h("input", { type: "range", min: "0", max: "0", value: "0", step: "1", "aria-label": "Play head: event shown", data: { testid: "playhead" } });
  #first = h("span", { class: "end" }, "1");
  #last = h("span", { class: "end" }, "0");
  #where = h("span", {});
  #live = h("button", { type: "button", class: "small", data: { testid: "live" } }, "Back to live");
  #note = h("div", { class: "travel", hidden: true }, this.#where, this.#live);
  #colors = new Map();
  #key = "";

  /** @param {{onSeek: (seq: number | null) => void, actions: Element[]}} hooks `null` means the newest event, from now on. */
  constructor(root, { onSeek, actions }) {
    root.append(this.#note, this.#first, h("div", { class: "strip" }, this.#canvas, this.#range), this.#last, h("div", { class: "actions" }, ...actions));
    this.#range.addEventListener("input", () => {
      const seq = Number(this.#range.value);
      onSeek(seq >= Number(this.#range.max) ? null : seq);
    });
    this.#live.addEventListener("click", () => onSeek(null));
    window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      this.#colors.clear();
      this.#key = "";
    });
  }

  render(recording, travel) {
    const { events, state } = recording;
    const head = travel ?? state.seq;
    const range = this.#range;
    if (range.max !== String(state.seq)) range.max = String(state.seq);
    if (range.value !== String(head)) range.value = String(head);
    range.setAttribute("aria-valuetext", `event ${head} of ${state.seq}`);
    say(this.#last, state.seq.toLocaleString("en"));
    this.#note.hidden = travel === null;
    if (travel !== null) say(this.#where, `The run as it was at event ${head.toLocaleString("en")} of ${state.seq.toLocaleString("en")}`);
    const key = [recording.generation, events.length, head, this.#canvas.clientWidth].join();
    if (key === this.#key) return;
    this.#key = key;
    this.#draw(events, state, head);
  }

  #color(name) {
    if (!this.#colors.has(name)) this.#colors.set(name, getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim() || "#888");
    return this.#colors.get(name);
  }

  #draw(events, state, head) {
    const ratio = window.devicePixelRatio || 1;
    const width = this.#canvas.clientWidth;
    if (!width) return;
    this.#canvas.width = Math.round(width * ratio);
    this.#canvas.height = Math.round(TALL * ratio);
    const pen = this.#canvas.getContext("2d");
    pen.scale(ratio, ratio);
    const span = Math.max(1, state.seq);
    const x = (seq) => INSET + ((width - 2 * INSET) * seq) / span;
    pen.fillStyle = this.#color("line");
    pen.fillRect(INSET, TALL / 2 - 0.5, width - 2 * INSET, 1);

    // Rows of lanes in their order; one pixel column is painted once a row, however many events lie in it.
    const rows = Math.max(1, state.lanes.length);
    const pitch = Math.min(8, (TALL - 4) / rows);
    const tall = Math.max(1.5, pitch - 1);
    const top = (TALL - pitch * rows) / 2;
    const until = new Float64Array(rows).fill(-1);
    const marks = [];
    let past = true;
    for (const event of events) {
      if (past && event.seq > head) {
        past = false;
        pen.globalAlpha = 0.28;
        until.fill(-1);
      }
      if (MARKS.has(event.type)) marks.push(event);
      const lane = state.invs[event.inv]?.lane;
      if (lane === undefined) continue;
      const to = x(event.seq);
      if (to <= until[lane]) continue;
      const from = Math.max(until[lane], Math.floor(x((event.first_seq || event.seq) - 1)));
      const end = Math.max(Math.ceil(to), from + 1);
      pen.fillStyle = this.#color(state.lanes[lane].accent);
      pen.fillRect(from, top + lane * pitch, end - from, tall);
      until[lane] = end;
    }
    for (const event of marks) {
      pen.globalAlpha = event.seq > head ? 0.35 : 1;
      const name = MARKS.get(event.type)(event);
      pen.fillStyle = this.#color(name);
      pen.fillRect(x(event.seq) - 1.5, 0, 3, 3);
      pen.fillRect(x(event.seq) - 0.5, 0, 1, TALL);
    }
    pen.globalAlpha = 1;
  }
}

const MARKS = new Map(Object.entries({
  "verdict.given": (event) => (event.ok ? "ok" : "bad"),
  "run.finished": () => "ok",
  "run.failed": () => "bad",
  "run.stopped": () => "warn",
}));
