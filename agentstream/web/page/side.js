/**
 * The side: lists of teams and runs go in, links stand on the page; what changed is touched, so focus and scroll stay.
 * It asks the server now and then while the page is seen, and says when the server does not answer.
 * It does not know the stream; a run that the page follows is told to it as a state.
 */
import { runs as fetchRuns, teams as fetchTeams } from "./api.js";
import { attribute, h, say } from "./dom.js";
import { age, epoch, short } from "./format.js";
import { question } from "./select.js";

const QUICK = 3_000;
const SLOW = 15_000;
const ACTIVE = new Set(["running", "waiting"]);

export class Side {
  teams = [];
  #nodes;
  #onTeams;
  #onReach;
  #runs = new Map();
  #views = new Map();
  #next = null;
  #own = null;
  #current = "";
  #timer = 0;
  #failures = 0;
  #loaded = false;

  /** @param {{teams: Element, runs: Element, more: Element}} nodes */
  constructor(nodes, { onTeams, onReach }) {
    this.#nodes = nodes;
    this.#onTeams = onTeams;
    this.#onReach = onReach;
    nodes.more.addEventListener("click", () => this.#older());
    document.addEventListener("visibilitychange", () => { if (!document.hidden) this.refresh(); });
  }

  refresh() {
    clearTimeout(this.#timer);
    void this.#tick();
  }

  async #tick() {
    try {
      if (!this.#loaded) {
        this.teams = await fetchTeams();
        this.#loaded = true;
        this.#onTeams(this.teams);
      }
      const page = await fetchRuns();
      for (const run of page.runs || []) this.#runs.set(run.run, run);
      if (this.#next === null) this.#next = page.next || "";
      this.#failures = 0;
      this.#onReach(null);
    } catch (error) {
      this.#failures += 1;
      this.#onReach(error);
    }
    this.draw();
    clearTimeout(this.#timer);
    if (document.hidden) return;
    const busy = this.#failures || [...this.#runs.values()].some((run) => ACTIVE.has(run.status));
    this.#timer = setTimeout(() => this.refresh(), busy ? QUICK * Math.min(5, 1 + this.#failures) : SLOW);
  }

  async #older() {
    try {
      const page = await fetchRuns(this.#next);
      for (const run of page.runs || []) this.#runs.set(run.run, run);
      this.#next = page.next || "";
      this.draw();
    } catch (error) {
      this.#onReach(error);
    }
  }

  /** The run on the page is newer here than in any list. */
  follow(state) {
    if (!state?.run) {
      this.#own = null;
      return;
    }
    const listed = this.#runs.get(state.run);
    const own = { ...listed, run: state.run, team: state.team, status: state.status, seq: state.seq, title: question(state.input) || listed?.title, created: listed?.created ?? state.began };
    const changed = !this.#own || ["run", "status", "title"].some((key) => this.#own[key] !== own[key]) || own.seq - this.#own.shown > 50;
    this.#own = { ...own, shown: changed ? own.seq : this.#own.shown };
    if (changed) this.draw();
  }

  select(run, team) {
    this.#current = run;
    for (const link of this.#nodes.teams.children) {
      const on = link.dataset.team === team;
      link.classList.toggle("on", on);
      if (on && !run) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    this.draw();
  }

  drawTeams(selected) {
    const links = this.teams.map((team) =>
      h("a", { class: `item${team.name === selected ? " on" : ""}`, href: `#/teams/${encodeURIComponent(team.name)}`, data: { testid: "team", team: team.name } },
        team.name, h("small", {}, team.description || agentsOf(team) || `version ${team.version}`)));
    this.#nodes.teams.replaceChildren(...(links.length ? links : [h("p", { class: "none" }, "No teams are loaded.")]));
  }

  draw() {
    const all = new Map(this.#runs);
    if (this.#own) all.set(this.#own.run, this.#own);
    const list = [...all.values()].sort((a, b) => (epoch(b.created) || 0) - (epoch(a.created) || 0));
    const root = this.#nodes.runs;
    for (const [id, view] of this.#views) {
      if (all.has(id)) continue;
      view.el.remove();
      this.#views.delete(id);
    }
    list.forEach((run, i) => {
      const view = this.#views.get(run.run) || this.#make(run.run);
      if (root.children[i] !== view.el) root.insertBefore(view.el, root.children[i] || null);
      say(view.title, run.title || run.input_title || question(run.input) || run.team || run.run);
      say(view.small, describe(run));
      attribute(view.el, "data-status", run.status || "");
      view.el.classList.toggle("on", run.run === this.#current);
      if (run.run === this.#current) view.el.setAttribute("aria-current", "page");
      else view.el.removeAttribute("aria-current");
    });
    const none = root.querySelector(".none");
    if (list.length) none?.remove();
    else if (!none) root.append(h("p", { class: "none" }, "No runs yet."));
    this.#nodes.more.hidden = !this.#next;
  }

  #make(run) {
    const title = h("span", { class: "title" });
    const small = h("small", {});
    const el = h("a", { class: "item run", href: `#/runs/${encodeURIComponent(run)}`, data: { testid: "run-item", run } }, h("span", { class: "dot" }), title, small);
    const view = { el, title, small };
    this.#views.set(run, view);
    return view;
  }
}

const agentsOf = (team) => (team.agents || []).map((agent) => (typeof agent === "string" ? agent : agent.name)).join(" · ");

function describe(run) {
  const since = Date.now() - epoch(run.created);
  const when = since >= 0 ? age(since) : "";
  return [run.status, when && (ACTIVE.has(run.status) ? when : `${when} ago`), run.seq ? `${short(run.seq)} events` : ""].filter(Boolean).join(" · ");
}
