/**
 * The developer page: the address in the hash goes in, one run (or none) stands on the page and follows its stream.
 * It joins the parts: recording (truth), follower (connection), views; it draws at most once a frame, however many events came.
 * It does not know event types, how things look, or anything that a reload must keep: the log has it all.
 */
import { answer, eventsPath, stop } from "./api.js";
import { Compose } from "./compose.js";
import { $, attribute, h, say } from "./dom.js";
import { Follower } from "./follow.js";
import { duration } from "./format.js";
import { TERMINAL } from "./fold.js";
import { Head } from "./head.js";
import { Inspector } from "./inspector.js";
import { Lanes } from "./lanes.js";
import { Recording } from "./record.js";
import { Ruler } from "./ruler.js";
import { question } from "./select.js";
import { Side } from "./side.js";

const ENDED = new Set(["finished", "failed", "stopped"]);
const root = document.documentElement;

class App {
  #run = "";
  #team = "";
  #recording = new Recording();
  #generation = 0;
  #follower = null;
  #phase = { name: "idle" };
  #travel = null; // the seq shown, null for the newest
  #lag = null;
  #skew = Infinity; // smallest (our clock − event time) seen: what both clocks differ by, at most
  #drawing = false;
  #stopping = false;
  #unreachable = null;
  #stopError = "";
  #ticker = 0;
  #lanes;
  #head;
  #compose;
  #toggleButton;
  #dropper;
  #ruler;
  #inspector;
  #side;

  constructor() {
    const hooks = { run: () => this.#run, onSize: () => this.#lanes.settle(), onZoom: zoom, onAnswer: (request, value) => answer(this.#run, request, value) };
    this.#lanes = new Lanes($("lanes"), $("tabs"), hooks);
    this.#head = new Head(hooks);
    this.#compose = new Compose($("compose"), (run) => this.#started(run));
    const toggle = h("button", { type: "button", class: "small", "aria-expanded": "false", "aria-controls": "inspector", data: { testid: "inspect" } }, "Events");
    this.#toggleButton = toggle;
    toggle.addEventListener("click", () => this.#inspect(!this.#inspector.open));
    const dropper = h("button", { type: "button", class: "small", title: "Cut the connection as a bad network would; the page resumes by itself", data: { testid: "drop" } }, "Drop connection");
    dropper.addEventListener("click", () => this.#follower?.drop());
    this.#dropper = dropper;
    this.#ruler = new Ruler($("ruler"), { onSeek: (seq) => this.#seek(seq), actions: [dropper, toggle] });
    const copy = h("button", { type: "button", class: "small", data: { testid: "copy" } }, "Copy JSONL");
    const save = h("button", { type: "button", class: "small", data: { testid: "save" } }, "Save JSONL");
    copy.addEventListener("click", () => this.#copy(copy));
    save.addEventListener("click", () => this.#save());
    this.#inspector = new Inspector($("inspector"), {
      onSeek: (seq) => this.#seek(seq), onClose: () => this.#inspect(false), accentOf: (event) => this.#recording.state.accents[event.agent] || "none", actions: [copy, save],
    });
    this.#side = new Side({ teams: $("teams"), runs: $("runs"), more: $("more") }, {
      onTeams: (teams) => this.#teamsCame(teams),
      onReach: (error) => {
        this.#unreachable = error;
        this.#banner();
      },
    });
  }

  start() {
    window.addEventListener("hashchange", () => this.#route());
    window.addEventListener("online", () => this.#follower?.wake());
    window.addEventListener("resize", () => this.#schedule());
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) return;
      this.#follower?.wake();
      this.#schedule();
    });
    window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#schedule());
    $("stop").addEventListener("click", () => this.#stop());
    $("skip").addEventListener("click", (event) => {
      event.preventDefault();
      this.#compose.focus();
    });
    $("menu").addEventListener("click", () => this.#menu(!document.body.classList.contains("menu-open")));
    document.addEventListener("click", (event) => {
      if (event.target.closest?.("#side a")) this.#menu(false);
    });
    document.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      this.#menu(false);
      if (this.#travel !== null) this.#seek(null);
    });
    this.#side.refresh();
    this.#route();
  }

  #menu(open) {
    document.body.classList.toggle("menu-open", open);
    $("menu").setAttribute("aria-expanded", String(open));
  }

  // --- where we are -----------------------------------------------------------------------------------------------------

  #route() {
    const [, kind, raw] = /^#\/(runs|teams)\/([^/]+)$/.exec(location.hash) || [];
    const name = raw ? decodeURIComponent(raw) : "";
    if (kind === "teams") this.#team = name;
    this.#open(kind === "runs" ? name : "");
  }

  #started(run) {
    location.hash = `#/runs/${run}`; // the hash is the only thing a reload needs
    this.#side.refresh();
  }

  #open(run) {
    if (run !== this.#run) {
      this.#follower?.close();
      this.#follower = null;
      this.#run = run;
      this.#recording = new Recording();
      this.#generation = 0;
      this.#travel = null;
      this.#lag = null;
      this.#skew = Infinity;
      this.#stopping = false;
      this.#stopError = "";
      this.#lanes.clear();
      this.#head.clear();
      this.#phase = { name: run ? "connecting" : "idle" };
      if (run) this.#follow(run);
    }
    this.#side.follow(null);
    this.#select();
    this.#draw();
  }

  #follow(run) {
    const recording = this.#recording;
    const follower = new Follower({
      url: eventsPath(run),
      onEvent: (event, raw) => {
        if (!recording.add(event, raw)) return;
        if (event.at) {
          this.#lag = Date.now() - event.at;
          this.#skew = Math.min(this.#skew, this.#lag);
        }
        if (TERMINAL.has(event.type)) this.#side.refresh();
        this.#schedule();
      },
      onPhase: (name, detail) => {
        if (this.#follower !== follower) return;
        this.#phase = { name, ...detail };
        this.#schedule();
      },
    });
    this.#follower = follower;
    void follower.run();
  }

  #teamsCame(teams) {
    this.#side.drawTeams(this.#team);
    if (!this.#team && teams.length) this.#team = teams[0].name;
    this.#select();
    this.#draw();
  }

  #select() {
    const name = this.#recording.state.team || this.#team;
    const team = this.#side.teams.find((one) => one.name === name) || this.#side.teams.find((one) => one.name === this.#team) || null;
    this.#compose.setTeam(team);
    this.#side.select(this.#run, team?.name);
  }

  // --- drawing ----------------------------------------------------------------------------------------------------------

  /** Once a frame; a hidden tab has no frames, and its state must be right all the same. */
  #schedule() {
    if (this.#drawing) return;
    this.#drawing = true;
    const draw = () => {
      this.#drawing = false;
      this.#draw();
    };
    if (document.hidden) setTimeout(draw, 200);
    else requestAnimationFrame(draw);
  }

  #status() {
    const { status } = this.#recording.state;
    if (!this.#run) return "idle";
    if (ENDED.has(status)) return status;
    if (this.#phase.name === "lost" || this.#phase.name === "done") return "lost";
    if (this.#phase.name !== "open" || status === "idle") return "connecting";
    return "running";
  }

  #draw() {
    const live = this.#recording.state;
    if (this.#recording.generation !== this.#generation) {
      this.#generation = this.#recording.generation;
      this.#travel = null;
      this.#lanes.clear();
      this.#head.clear();
    }
    const state = this.#travel === null ? live : this.#recording.at(this.#travel);
    const status = this.#status();
    const followed = !!this.#run;
    if (this.#recording.state.team && this.#recording.state.team !== this.#team) {
      this.#team = this.#recording.state.team;
      this.#select();
    }
    $("ruler").hidden = !followed || (status === "lost" && !live.seq);
    this.#head.render(state, live);
    this.#lanes.render(state, this.#now(state, status));
    this.#ruler.render(this.#recording, this.#travel);
    this.#inspector.render(this.#recording, this.#travel);
    this.#side.follow(followed ? live : null);
    this.#pills(live, status);
    this.#empty(state, status);
    this.#banner();
    document.body.classList.toggle("travelling", this.#travel !== null);
    document.title = followed && live.input !== undefined ? `${question(live.input).slice(0, 60)} · agentstream` : "agentstream";
    attribute(root, "data-status", status);
    attribute(root, "data-seq", String(live.seq));
    attribute(root, "data-shown", String(state.seq));
    this.#tick(status);
  }

  /** The event time it is: the last event's, or while the run goes on our clock less what the clocks differ by. */
  #now(state, status) {
    if (this.#travel !== null || status !== "running" || !Number.isFinite(this.#skew)) return state.at;
    return Math.max(state.at, Date.now() - this.#skew);
  }

  /** Heads of lanes say for how long; nothing else changes without an event. */
  #tick(status) {
    const wanted = this.#travel === null && (status === "running" || this.#phase.name === "waiting");
    if (wanted && !this.#ticker) this.#ticker = setInterval(() => this.#schedule(), 1000);
    if (!wanted && this.#ticker) {
      clearInterval(this.#ticker);
      this.#ticker = 0;
    }
  }

  #pills(live, status) {
    const words = {
      connecting: this.#phase.name === "waiting" || this.#follower?.cursor ? "reconnecting" : "connecting",
      running: live.status === "waiting" ? `queued · ${live.hold?.on || "a place"}${live.hold?.position ? ` · ${live.hold.position} before it` : ""}` : "running",
    };
    say($("status"), words[status] || status);
    attribute($("status-pill"), "data-status", status);
    $("status-pill").classList.toggle("live", status === "running");
    for (const id of ["seq-pill", "lag-pill", "resumes-pill"]) $(id).hidden = !this.#run || status === "lost";
    $("status-pill").hidden = !this.#run;
    $("lag-pill").hidden ||= status !== "running";
    say($("lag"), this.#lag === null ? "–" : this.#lag < 1 ? "< 1 ms" : duration(this.#lag));
    say($("resumes"), String(this.#follower?.resumes || 0));
    $("stop").hidden = !(status === "running" || (status === "connecting" && live.seq > 0));
    $("stop").disabled = this.#stopping;
    say($("stop"), this.#stopping ? "Stopping…" : "Stop");
    this.#dropper.disabled = this.#phase.name !== "open" || status !== "running";
  }

  #banner() {
    const { name, problem, reason, failures } = this.#phase;
    const notes = [];
    if (name === "lost") {
      const gone = { 404: "This run is not known here. It may have been deleted, or it belongs to somebody else.", 410: "This run's record is gone: it was kept for a limited time." };
      notes.push({ tone: "bad", text: gone[this.#phase.status] || `The stream was refused: ${problem?.message || this.#phase.status}` });
    } else if (name === "done" && this.#status() === "lost") {
      notes.push({ tone: "bad", text: "The server says that the stream is over, but its end never came." });
    } else if (name === "waiting" && failures > 0) {
      notes.push({ tone: "warn", text: `The connection does not come back (${reason}). Trying again by itself; nothing is lost.`, wake: true });
    } else if (this.#unreachable && name !== "open") {
      notes.push({ tone: "warn", text: `The server cannot be reached: ${this.#unreachable.message} Trying again by itself.` });
    }
    if (this.#stopError) notes.push({ tone: "bad", text: `Stop failed: ${this.#stopError}` });
    for (const note of this.#recording.state.notes.slice(-3)) notes.push(note);
    const key = JSON.stringify(notes);
    const box = $("banner");
    if (box.dataset.key === key) return;
    box.dataset.key = key;
    box.replaceChildren(...notes.map((note) => h("p", { class: `banner ${note.tone}` }, h("span", {}, note.text),
      note.wake ? h("button", { type: "button", class: "small", on: { click: () => this.#follower?.wake() } }, "Try now") : null)));
  }

  #empty(state, status) {
    const box = $("empty");
    box.hidden = state.lanes.length > 0 || ENDED.has(status);
    $("lanes").hidden = !box.hidden;
    if (box.hidden) return;
    const team = this.#side.teams.find((one) => one.name === this.#team);
    const key = [this.#run ? status : "", team?.name, this.#side.teams.length, !!this.#unreachable].join();
    if (box.dataset.key === key) return;
    box.dataset.key = key;
    if (this.#run) {
      box.replaceChildren(h("p", { class: "quiet" }, status === "lost" ? "There is nothing to show." : status === "connecting" ? "Connecting…" : "Waiting for the first agent…"));
      return;
    }
    const agents = (team?.agents || []).map((agent) => (typeof agent === "string" ? { name: agent } : agent));
    box.replaceChildren(
      h("h2", {}, team ? team.name : this.#unreachable ? "No server" : "No teams yet"),
      h("p", {}, team ? team.description || "A team of agents." : this.#unreachable ? "Start it with “agentstream serve”." : "Start the server with a folder of teams."),
      agents.length ? h("p", { class: "who" }, agents.map((agent) => h("span", { class: `pill accent-${["planner", "executor", "verifier"].find((known) => known === agent.role || known === agent.name) || "none"}` }, h("span", { class: "dot" }), agent.name))) : null,
      team ? h("p", { class: "quiet" }, "Write a question below and add a file if it needs one. Everything the agents do comes here as one ordered stream: a lane an agent, every event on the ruler.") : null,
    );
  }

  // --- what people do -----------------------------------------------------------------------------------------------------

  #seek(seq) {
    this.#travel = seq;
    this.#schedule();
  }

  #inspect(open) {
    this.#inspector.toggle(open);
    $("stage").classList.toggle("split", open);
    this.#toggleButton.setAttribute("aria-expanded", String(open));
    if (!open) this.#toggleButton.focus();
    this.#schedule();
  }

  async #stop() {
    const run = this.#run;
    this.#stopping = true;
    this.#stopError = "";
    this.#schedule();
    try {
      await stop(run);
    } catch (error) {
      if (run !== this.#run) return;
      this.#stopping = false;
      this.#stopError = error.message;
      this.#schedule();
    }
  }

  #jsonl() {
    return this.#recording.raws.map((raw) => `${raw}\n`).join("");
  }

  async #copy(button) {
    let word = "Copied";
    try {
      await navigator.clipboard.writeText(this.#jsonl());
    } catch {
      word = "Not allowed: save it"; // no clipboard outside secure contexts
    }
    say(button, word);
    setTimeout(() => say(button, "Copy JSONL"), 1500);
  }

  #save() {
    const address = URL.createObjectURL(new Blob([this.#jsonl()], { type: "application/x-ndjson" }));
    h("a", { href: address, download: `${this.#run}.jsonl` }).click();
    setTimeout(() => URL.revokeObjectURL(address), 10_000);
  }
}

function zoom(src, name) {
  const dialog = h("dialog", { class: "zoom", "aria-label": name }, h("img", { src, alt: name }));
  dialog.addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}

new App().start();
