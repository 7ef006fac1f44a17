/**
 * The server's addresses as functions: plain values go in, parsed answers or a `Problem` come out.
 * Addresses are relative to the page, so it works under any mount point.
 * It does not know the stream (see follow.js) or the page.
 */

/** An answer that is an error (RFC 9457), or no answer at all (`status` 0, code `unreachable`). */
export class Problem extends Error {
  constructor(status, code, message) {
    super(message);
    this.name = "Problem";
    this.status = status;
    this.code = code;
  }
}

export async function problemOf(response) {
  let body = {};
  try {
    body = (await response.json()) || {};
  } catch {
    body = {}; // a proxy's error page: the status has to do
  }
  const message = body.detail || body.title || `the server answered ${response.status}`;
  return new Problem(response.status, body.code || `http-${response.status}`, String(message));
}

async function ask(path, init) {
  let response;
  try {
    response = await fetch(path, { cache: "no-store", ...init });
  } catch {
    throw new Problem(0, "unreachable", "The server does not answer.");
  }
  if (!response.ok) throw await problemOf(response);
  return response;
}

const pause = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });

const runPath = (run) => `runs/${encodeURIComponent(run)}`;
export const eventsPath = (run) => `${runPath(run)}/events`;
export const artifactPath = (run, id) => `${runPath(run)}/artifacts/${encodeURIComponent(id)}`;

export const teams = async () => (await (await ask("teams")).json()).teams || [];

export async function runs(before) {
  return (await ask(`runs?limit=30${before ? `&before=${encodeURIComponent(before)}` : ""}`)).json();
}

export async function upload(file) {
  const headers = { "Content-Type": file.type || "application/octet-stream", "X-File-Name": encodeURIComponent(file.name) };
  return (await ask("files", { method: "POST", headers, body: file })).json();
}

/** Starts a run. The key makes repeating safe, so an answer that got lost is asked for again. */
export async function start(body, key) {
  const init = { method: "POST", headers: { "Content-Type": "application/json", "Idempotency-Key": key }, body: JSON.stringify(body) };
  for (let attempt = 0; ; attempt += 1) {
    try {
      return await (await ask("runs", init)).json();
    } catch (error) {
      if (error.status !== 0 || attempt >= 2) throw error;
      await pause(400 * 2 ** attempt);
    }
  }
}

export const stop = (run) =>
  ask(`${runPath(run)}/stop`, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ mode: "now" }) });

/** Answers a question of the run. */
export const answer = (run, request, value) =>
  ask(`${runPath(run)}/input`, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ request, value }) });

export const artifactText = async (run, id) => (await ask(artifactPath(run, id))).text();

/** A random key; `randomUUID` exists in secure contexts only, and a server in the local network is none. */
export function newKey() {
  if (crypto.randomUUID) return crypto.randomUUID();
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
