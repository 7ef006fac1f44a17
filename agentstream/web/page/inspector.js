/**
 * The event inspector: a recording goes in, its raw events stand in a list that can be filtered, copied and saved.
 * Only the rows in sight exist, so ten thousand events cost as much as thirty.
 * It does not know what events mean; it shows the bytes that came.
 */
import { h, say } from "./dom.js";
import { clip } from "./format.js";

const ROW = 24;
const SPARE = 8;
const ENVELOPE = new Set(["seq", "first_seq", "at", "type", "agent", "inv", "agent_seq"]);

export class Inspector {
  #root;
  #hooks;
  #recording = null;
  #generation = -1;
  #filter = "";
  #hits = [];
  #scanned = 0;
  #selected = 0; // seq
  #follow = true;
  #travel = null;
  #shownAt = null; // the play head that the list was last scrolled to
  #detailOf = null;
  #input = h("input", { type: "search", placeholder: "Filter: type, agent, any text", "aria-label": "Filter events", data: { testid: "event-filter" } });
  #count = h("small", { role: "status" });
  #rows = h("div", { class: "rows" });
  #list = h("div", { class: "list", tabindex: "0", role: "listbox", "aria-label": "Events" }, this.#rows);
  #detail = h("pre", { class: "detail", tabindex: "0", "aria-label": "Chosen event" });
  #go = h("button", { type: "button", class: "small" }, "Show the run here");

  /** @param {{onSeek: (seq: number) => void, onClose: () => void, accentOf: (event: object) => string, actions: Element[]}} hooks */
  constructor(root, hooks) {
    this.#root = root;
    this.#hooks = hooks;
    const close = h("button", { type: "button", class: "ghost", "aria-label": "Close events", on: { click: hooks.onClose } }, "✕");
    this.#go.hidden = true;
    root.append(
      h("header", {}, h("h2", {}, "Events"), this.#count, close),
      h("div", { class: "bar" }, this.#input),
      this.#list,
      h("div", { class: "bar" }, this.#go, ...hooks.actions),
      this.#detail,
    );
    this.#detail.hidden = true;
    this.#input.addEventListener("input", () => {
      this.#filter = this.#input.value.trim().toLowerCase();
      this.#scanned = 0;
      this.#hits = [];
      this.render(this.#recording, this.#travel);
    });
    this.#list.addEventListener("scroll", () => {
      this.#follow = this.#list.scrollHeight - this.#list.scrollTop - this.#list.clientHeight < 2 * ROW;
      this.#window();
    }, { passive: true });
    this.#list.addEventListener("keydown", (event) => this.#key(event));
    this.#list.addEventListener("click", (event) => {
      const row = event.target.closest(".row");
      if (row) this.#select(Number(row.dataset.seq));
    });
    this.#go.addEventListener("click", () => this.#selected && hooks.onSeek(this.#selected));
  }

  get open() {
    return !this.#root.hidden;
  }

  toggle(open) {
    this.#root.hidden = !open;
    if (open) this.#input.focus();
  }

  render(recording, travel) {
    this.#recording = recording;
    const moved = travel !== null && travel !== this.#shownAt;
    this.#travel = travel;
    if (!this.open || !recording) return;
    if (this.#generation !== recording.generation || this.#scanned > recording.events.length) {
      this.#generation = recording.generation;
      this.#scanned = 0;
      this.#hits = [];
      this.#selected = 0;
    }
    this.#scan();
    const { length } = recording.events;
    say(this.#count, this.#filter ? `${this.#hits.length.toLocaleString("en")} of ${length.toLocaleString("en")}` : length.toLocaleString("en"));
    this.#rows.style.setProperty("height", `${this.#hits.length * ROW}px`);
    if (this.#follow && travel === null) this.#list.scrollTop = this.#list.scrollHeight;
    if (moved) this.#reveal(travel);
    this.#shownAt = travel;
    this.#window();
    this.#show();
  }

  #scan() {
    const { raws } = this.#recording;
    const terms = this.#filter.split(/\s+/).filter(Boolean);
    for (; this.#scanned < raws.length; this.#scanned += 1) {
      const raw = terms.length ? raws[this.#scanned].toLowerCase() : "";
      if (terms.every((term) => raw.includes(term))) this.#hits.push(this.#scanned);
    }
  }

  /** The play head went somewhere: the list goes there too, unless that row is in sight. */
  #reveal(seq) {
    const { events } = this.#recording;
    let at = 0;
    while (at < this.#hits.length - 1 && events[this.#hits[at + 1]].seq <= seq) at += 1;
    const top = at * ROW;
    const { scrollTop, clientHeight } = this.#list;
    if (top < scrollTop || top + ROW > scrollTop + clientHeight) this.#list.scrollTop = top - clientHeight / 2;
  }

  #window() {
    if (!this.#recording) return;
    const from = Math.max(0, Math.floor(this.#list.scrollTop / ROW) - SPARE);
    const to = Math.min(this.#hits.length, Math.ceil((this.#list.scrollTop + this.#list.clientHeight) / ROW) + SPARE);
    const rows = [];
    for (let i = from; i < to; i += 1) rows.push(this.#row(this.#recording.events[this.#hits[i]], i));
    this.#rows.replaceChildren(...rows);
  }

  #row(event, i) {
    const chosen = event.seq === this.#selected;
    const later = this.#travel !== null && event.seq > this.#travel;
    const row = h("div", {
      class: `row accent-${this.#hooks.accentOf(event)}${chosen ? " on" : ""}${later ? " later" : ""}`, role: "option", id: `event-${event.seq}`,
      "aria-selected": String(chosen), "aria-posinset": i + 1, "aria-setsize": this.#hits.length, data: { seq: event.seq, testid: "event-row" },
    }, h("i", {}, event.seq), h("b", {}, event.type), h("em", {}, event.inv || ""), h("span", {}, summary(event)));
    row.style.setProperty("top", `${i * ROW}px`);
    if (chosen) this.#list.setAttribute("aria-activedescendant", row.id);
    return row;
  }

  #select(seq) {
    this.#selected = seq;
    this.#window();
    this.#show();
  }

  #show() {
    const index = this.#selected ? this.#recording.upTo(this.#selected) - 1 : -1;
    const event = this.#recording.events[index] || null;
    this.#detail.hidden = !event;
    this.#go.hidden = !event;
    if (event === this.#detailOf) return;
    this.#detailOf = event;
    this.#detail.textContent = event ? JSON.stringify(event, null, 2) : "";
  }

  #key(event) {
    const page = Math.max(1, Math.floor(this.#list.clientHeight / ROW) - 1);
    const way = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity }[event.key];
    if (event.key === "Enter" && this.#selected) this.#hooks.onSeek(this.#selected);
    if (way === undefined || !this.#hits.length) return;
    event.preventDefault();
    const { events } = this.#recording;
    const at = this.#hits.findIndex((index) => events[index].seq === this.#selected);
    const to = Math.min(this.#hits.length - 1, Math.max(0, (at < 0 ? 0 : at) + way));
    const top = to * ROW;
    if (top < this.#list.scrollTop) this.#list.scrollTop = top;
    else if (top + ROW > this.#list.scrollTop + this.#list.clientHeight) this.#list.scrollTop = top + ROW - this.#list.clientHeight;
    this.#select(events[this.#hits[to]].seq);
  }
}

function summary(event) {
  const rest = Object.entries(event).filter(([name]) => !ENVELOPE.has(name));
  if (rest.length === 0) return "";
  const text = event.text ?? event.message ?? event.title;
  if (typeof text === "string" && rest.length <= 3) return clip(JSON.stringify(text), 160);
  return clip(rest.map(([name, value]) => `${name} ${clip(JSON.stringify(value) ?? "", 60)}`).join(" · "), 160);
}
