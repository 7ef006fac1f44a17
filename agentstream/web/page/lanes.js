/**
 * The lanes: a folded state goes in, columns of items (tabs on a phone) stand on the page and follow it.
 * Lanes and items are compared by reference with what is shown; only what differs is touched.
 * It does not know the stream, and it keeps nothing but what people chose: folded lanes, the chosen tab, where they scrolled.
 */
import { attribute, h, say } from "./dom.js";
import { viewOf } from "./items.js";
import { foldable, laneHead, visibleLanes } from "./select.js";

const NEAR = 48; // px from the end within which a lane follows its newest item

export class Lanes {
  #root;
  #tabs;
  #hooks;
  #views = new Map();
  #folds = new Map(); // lane id → what the person chose
  #tab = "";
  #chosen = false;

  constructor(root, tabs, hooks) {
    this.#root = root;
    this.#tabs = tabs;
    this.#hooks = hooks;
    tabs.addEventListener("keydown", (event) => this.#step(event));
  }

  clear() {
    for (const view of this.#views.values()) this.#drop(view);
    this.#views.clear();
    this.#folds.clear();
    this.#tab = "";
    this.#chosen = false;
  }

  /** `now` is the event time it is: the head of a lane says for how long. */
  render(state, now) {
    const lanes = visibleLanes(state);
    const auto = foldable(state, lanes);
    const ids = new Set(lanes.map((lane) => lane.id));
    for (const [id, view] of this.#views) {
      if (ids.has(id)) continue;
      this.#drop(view);
      this.#views.delete(id);
    }
    if (!this.#chosen || !ids.has(this.#tab)) this.#tab = this.#busiest(state, lanes);
    const moved = [];
    lanes.forEach((lane, i) => {
      const view = this.#views.get(lane.id) || this.#make(lane);
      if (this.#root.children[i] !== view.el) {
        this.#root.insertBefore(view.el, this.#root.children[i] || null);
        this.#tabs.insertBefore(view.tab, this.#tabs.children[i] || null);
      }
      this.#head(view, state, lane, now);
      this.#fold(view, this.#folds.get(lane.id) ?? auto.has(lane.id));
      const on = lane.id === this.#tab;
      view.el.classList.toggle("on", on);
      attribute(view.tab, "aria-selected", String(on));
      view.tab.tabIndex = on ? 0 : -1;
      if (view.lane !== lane && this.#items(view, lane)) moved.push(view);
    });
    this.#tabs.hidden = lanes.length < 2;
    for (const view of moved) if (view.follow) view.scroll.scrollTop = view.scroll.scrollHeight;
  }

  /** After a picture or a table took its place. */
  settle() {
    for (const view of this.#views.values()) if (view.follow) view.scroll.scrollTop = view.scroll.scrollHeight;
  }

  #make(lane) {
    const dot = () => h("span", { class: "dot" });
    const wait = h("span", { class: "wait" });
    const inv = h("span", { class: "inv" });
    const name = h("b", { id: `lane-${lane.id}` }, lane.agent);
    const fold = h("button", { type: "button", class: "fold", "aria-expanded": "true", "aria-label": `Fold ${lane.agent}`, title: "Fold or unfold" }, "‹");
    const body = h("div", { class: "body", data: { testid: "lane-text" } });
    const scroll = h("div", { class: "scroller", tabindex: "0", role: "log", "aria-live": "off", "aria-labelledby": name.id }, body);
    const el = h("section", {
      class: `lane accent-${lane.accent}`, id: `panel-${lane.id}`, "aria-label": lane.agent, data: { testid: "lane", inv: lane.inv, agent: lane.agent },
    }, h("header", {}, dot(), name, inv, wait, fold), scroll);
    const tabInv = h("span", {});
    const tab = h("button", { type: "button", role: "tab", class: `accent-${lane.accent}`, "aria-controls": el.id }, dot(), lane.agent, tabInv);
    const view = { el, body, scroll, tab, tabInv, wait, inv, fold, lane: null, items: [], follow: true };
    scroll.addEventListener("scroll", () => {
      view.follow = scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < NEAR;
    }, { passive: true });
    const toggle = () => {
      this.#folds.set(lane.id, !el.classList.contains("folded"));
      this.#fold(view, this.#folds.get(lane.id));
    };
    fold.addEventListener("click", toggle);
    tab.addEventListener("click", () => this.#choose(lane.id));
    this.#views.set(lane.id, view);
    return view;
  }

  #drop(view) {
    view.el.remove();
    view.tab.remove();
  }

  #head(view, state, lane, now) {
    const head = laneHead(state, lane, now);
    say(view.inv, lane.inv);
    say(view.wait, head.text);
    attribute(view.wait, "data-tone", head.tone);
    attribute(view.tab, "data-tone", head.tone);
    attribute(view.el, "data-inv", lane.inv);
    const twins = state.lanes.filter((other) => other.agent === lane.agent).length > 1;
    say(view.tabInv, twins ? lane.inv.slice(lane.agent.length) : "");
    view.el.classList.toggle("twin", twins);
  }

  #fold(view, folded) {
    view.el.classList.toggle("folded", folded);
    attribute(view.fold, "aria-expanded", String(!folded));
  }

  /** True when something new stands at the end. */
  #items(view, lane) {
    view.lane = lane;
    const { items } = lane;
    while (view.items.length > items.length) view.items.pop().view.el.remove();
    let changed = false;
    for (let i = 0; i < items.length; i += 1) {
      const shown = view.items[i];
      if (shown?.item === items[i]) continue;
      changed = true;
      if (shown && shown.item.id === items[i].id && shown.item.kind === items[i].kind) {
        shown.item = items[i];
        shown.view.update(items[i]);
        continue;
      }
      const fresh = { item: items[i], view: viewOf(items[i], this.#hooks) };
      fresh.view.update(items[i]);
      if (shown) shown.view.el.replaceWith(fresh.view.el);
      else view.body.append(fresh.view.el);
      view.items[i] = fresh;
    }
    return changed;
  }

  /** The lane that works; at the end the last one. A person's choice holds. */
  #busiest(state, lanes) {
    const busy = lanes.filter((lane) => laneHead(state, lane, 0).tone === "busy");
    return (busy[busy.length - 1] || lanes.find((lane) => lane.id === this.#tab) || lanes[lanes.length - 1])?.id || "";
  }

  #choose(id) {
    this.#tab = id;
    this.#chosen = true;
    for (const [other, view] of this.#views) {
      view.el.classList.toggle("on", other === id);
      attribute(view.tab, "aria-selected", String(other === id));
      view.tab.tabIndex = other === id ? 0 : -1;
      if (other === id && view.follow) view.scroll.scrollTop = view.scroll.scrollHeight;
    }
  }

  #step(event) {
    const way = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!way) return;
    const tabs = [...this.#tabs.children];
    const next = tabs[(tabs.indexOf(document.activeElement) + way + tabs.length) % tabs.length];
    event.preventDefault();
    next?.click();
    next?.focus();
  }
}
