/**
 * The form that starts a run: a team goes in; the words, fields and files that a person gives come out as a started run.
 * Files are uploaded as soon as they are chosen, and Run waits for them; a failed start keeps everything that was written.
 * It does not know runs that exist already.
 */
import { newKey, start, upload } from "./api.js";
import { h, say } from "./dom.js";
import { size } from "./format.js";
import { formOf, inputOf } from "./schema.js";

export class Compose {
  #root;
  #onStarted;
  #team = null;
  #form = formOf(null);
  #files = [];
  #busy = false;
  #key = { body: "", value: "" };
  #chips = h("div", { class: "chips" });
  #prompt = h("textarea", { id: "prompt-box", rows: "1", "aria-label": "Question", data: { testid: "prompt" } });
  #picker = h("input", { type: "file", multiple: true, id: "file", class: "hidden", tabindex: "-1", data: { testid: "file" }, "aria-label": "Add files" });
  #fields = h("div", { class: "fields", id: "fields", hidden: true });
  #more = h("button", { type: "button", class: "add", "aria-expanded": "false", "aria-controls": "fields" }, "Options");
  #error = h("p", { class: "error", role: "alert", data: { testid: "compose-error" } });
  #run = h("button", { type: "submit", class: "go", data: { testid: "run" } }, "Run");

  constructor(root, onStarted) {
    this.#root = root;
    this.#onStarted = onStarted;
    const add = h("button", { type: "button", class: "add", "aria-label": "Add files", title: "Add files (or drop them anywhere)", on: { click: () => this.#picker.click() } }, "+ File");
    root.append(this.#error, this.#chips, this.#fields, h("div", { class: "line" }, add, this.#more, this.#picker, this.#prompt, this.#run));
    this.#more.addEventListener("click", () => this.#options(this.#fields.hidden));
    root.addEventListener("submit", (event) => {
      event.preventDefault();
      void this.#submit();
    });
    this.#prompt.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      root.requestSubmit();
    });
    this.#prompt.addEventListener("input", () => {
      say(this.#error, "");
      this.#grow();
    });
    this.#picker.addEventListener("change", () => {
      this.#add(this.#picker.files);
      this.#picker.value = "";
    });
    this.#drops();
    this.#show();
  }

  setTeam(team) {
    if (this.#team?.name === team?.name && this.#team?.version === team?.version) return;
    this.#team = team;
    this.#form = formOf(team?.input);
    const what = { text: "question", object: this.#form.main, json: "input as JSON" }[this.#form.kind];
    this.#prompt.placeholder = team ? (what === "question" ? `Ask the team ${team.name} something…` : `${what} for the team ${team.name}…`) : "No team is loaded";
    this.#fields.replaceChildren(...this.#form.fields.map(fieldOf));
    this.#more.hidden = !this.#form.fields.length;
    this.#options(this.#form.fields.some((field) => field.required));
    this.#show();
  }

  #options(open) {
    this.#fields.hidden = !open;
    this.#more.setAttribute("aria-expanded", String(open));
  }

  focus() {
    this.#prompt.focus();
  }

  // --- files ----------------------------------------------------------------------------------------------------------

  #add(list) {
    for (const file of list) {
      const entry = { file, id: "", state: "uploading", error: "", done: null };
      this.#files.push(entry);
      this.#send(entry);
    }
    this.#show();
  }

  #send(entry) {
    Object.assign(entry, { state: "uploading", error: "" });
    entry.done = upload(entry.file).then(
      (answer) => Object.assign(entry, { state: "ready", id: answer.file }),
      (error) => Object.assign(entry, { state: "failed", error: error.message }),
    ).then(() => this.#show());
  }

  #chip(entry) {
    const remove = () => {
      this.#files = this.#files.filter((other) => other !== entry);
      this.#show();
    };
    const retry = () => {
      this.#send(entry);
      this.#show();
    };
    const note = { uploading: "uploading…", ready: size(entry.file.size), failed: `not uploaded: ${entry.error}` }[entry.state];
    return h("span", { class: `pill file ${entry.state}`, data: { testid: "file-chip", state: entry.state } }, h("b", {}, entry.file.name), note,
      entry.state === "failed" ? h("button", { type: "button", class: "ghost", on: { click: retry } }, "Retry") : null,
      h("button", { type: "button", class: "ghost", "aria-label": `Remove ${entry.file.name}`, on: { click: remove } }, "×"));
  }

  #drops() {
    let depth = 0;
    const over = (on) => document.body.classList.toggle("dropping", on);
    const files = (event) => [...(event.dataTransfer?.types || [])].includes("Files");
    window.addEventListener("dragenter", (event) => { if (files(event)) over((depth += 1) > 0); });
    window.addEventListener("dragleave", (event) => { if (files(event)) over((depth = Math.max(0, depth - 1)) > 0); });
    window.addEventListener("dragover", (event) => { if (files(event)) event.preventDefault(); });
    window.addEventListener("drop", (event) => {
      if (!files(event)) return;
      event.preventDefault();
      depth = 0;
      over(false);
      this.#add(event.dataTransfer.files);
    });
  }

  // --- sending --------------------------------------------------------------------------------------------------------

  async #submit() {
    if (this.#busy || !this.#team) return;
    say(this.#error, "");
    try {
      const input = inputOf(this.#form, this.#prompt.value, this.#values());
      this.#busy = true;
      this.#show();
      await Promise.all(this.#files.map((entry) => entry.done));
      if (this.#files.some((entry) => entry.state === "failed")) throw new Error("A file was not uploaded: retry it or remove it.");
      const body = { team: this.#team.name, input, files: this.#files.map((entry) => entry.id) };
      const { run } = await start(body, this.#keyFor(body));
      this.#key = { body: "", value: "" };
      this.#files = [];
      this.#prompt.value = "";
      this.#onStarted(run, this.#team.name);
    } catch (error) {
      say(this.#error, error.message);
      this.#prompt.focus();
    } finally {
      this.#busy = false;
      this.#show();
    }
  }

  /** The same words sent again after a lost answer are the same run; changed words are another. */
  #keyFor(body) {
    const text = JSON.stringify(body);
    if (this.#key.body !== text) this.#key = { body: text, value: newKey() };
    return this.#key.value;
  }

  #values() {
    const values = {};
    for (const box of this.#fields.querySelectorAll("[name]")) values[box.name] = box.type === "checkbox" ? box.checked : box.value;
    return values;
  }

  #show() {
    this.#chips.replaceChildren(...this.#files.map((entry) => this.#chip(entry)));
    this.#chips.hidden = !this.#files.length;
    this.#run.disabled = this.#busy || !this.#team;
    this.#prompt.disabled = !this.#team;
    say(this.#run, this.#busy ? "Starting…" : "Run");
    this.#root.classList.toggle("busy", this.#busy);
    this.#grow();
  }

  #grow() {
    this.#prompt.style.setProperty("height", "auto");
    this.#prompt.style.setProperty("height", `${Math.min(160, this.#prompt.scrollHeight + 2)}px`);
  }
}

function fieldOf(field) {
  const common = { name: field.name, id: `field-${field.name}`, title: field.hint || null };
  const initial = field.initial ?? "";
  let box;
  if (field.type === "boolean") box = h("input", { ...common, type: "checkbox", checked: !!field.initial });
  else if (field.choices) {
    const choices = field.required || field.initial !== undefined ? field.choices : ["", ...field.choices];
    box = h("select", common, choices.map((choice) => h("option", { value: choice, selected: choice === field.initial }, String(choice))));
  } else box = h("input", { ...common, type: field.type === "string" ? "text" : "number", step: field.type === "integer" ? "1" : "any", value: initial === null ? "" : initial });
  return h("label", { for: common.id }, h("span", {}, field.label, field.required ? " *" : ""), box);
}
