/**
 * One stream, followed to its end: an address goes in, every event comes out once and in order, whatever the connection does.
 * It reads with fetch, so it sees heartbeats, statuses and headers: native EventSource closes for good on any answer but 200
 * and cannot tell a silent line from a quiet run. It does not know what an event means, except which types end a run.
 *
 * Phases told to `onPhase`: connecting · open · waiting {delay, reason} · done · lost {status, problem}.
 */
import { Decoder } from "./sse.js";
import { TERMINAL } from "./fold.js";
import { problemOf } from "./api.js";

const SILENCE = 45_000; // three heartbeats of 15 s
const SHORTEST = 500;
const LONGEST = 15_000;
const LINGER = 2_000; // after the terminal the server closes; we do not wait for it longer than this
const FINAL = new Set([400, 401, 403, 404, 406, 410]); // answers that asking again cannot change

const browser = {
  fetch: (...args) => globalThis.fetch(...args),
  after: (ms, run) => {
    const timer = setTimeout(run, ms);
    return () => clearTimeout(timer);
  },
  random: Math.random,
};

/** The wait before connection attempt number `failures + 1`: exponential, half of it random, within 0.5 s and 15 s. */
export function backoff(failures, retry, random) {
  const base = Math.min(LONGEST, Math.max(SHORTEST, retry || SHORTEST));
  const ceiling = Math.min(LONGEST, base * 2 ** Math.min(failures, 8));
  return Math.max(SHORTEST, ceiling / 2 + (random() * ceiling) / 2);
}

export class Follower {
  cursor = "";
  resumes = 0;
  #options;
  #abort = null;
  #skip = null;
  #closed = false;
  #ended = false;
  #failures = 0;

  /** @param {{url: string, onEvent: (event: object, raw: string) => void, onPhase: (phase: string, detail: object) => void}} options */
  constructor(options) {
    this.#options = { ...browser, ...options };
  }

  /** Resolves when the stream is over: done, lost, or closed by us. */
  async run() {
    while (!this.#closed) {
      this.#phase("connecting", { cursor: this.cursor });
      const result = await this.#connect();
      if (this.#closed) return;
      if (this.#ended || result.done) return this.#phase("done", {});
      if (result.lost) return this.#phase("lost", result.lost);
      const delay = Math.max(backoff(this.#failures, result.retry, this.#options.random), result.atLeast || 0);
      this.#failures += 1;
      await this.#pause(delay, result.reason);
    }
  }

  /** Cuts the connection as a bad network would; the loop resumes by itself. */
  drop() {
    this.#abort?.abort(new Error("dropped on purpose"));
  }

  /** Ends a wait early: the network or the tab came back, or a person asked. */
  wake() {
    this.#skip?.();
  }

  close() {
    this.#closed = true;
    this.#abort?.abort(new Error("closed"));
    this.#skip?.();
  }

  #phase(name, detail) {
    if (!this.#closed) this.#options.onPhase(name, { resumes: this.resumes, ...detail });
  }

  #pause(delay, reason) {
    this.#phase("waiting", { delay, reason, failures: this.#failures });
    return new Promise((resolve) => {
      const cancel = this.#options.after(delay, resolve);
      this.#skip = () => {
        cancel();
        resolve();
      };
    });
  }

  /** One connection: its end is `{done}`, `{lost}`, or a reason to come back. */
  async #connect() {
    const abort = new AbortController();
    this.#abort = abort;
    const decoder = new Decoder();
    let disarm = () => {};
    const arm = (ms, why) => {
      disarm();
      disarm = this.#options.after(ms, () => abort.abort(new Error(why)));
    };
    try {
      arm(SILENCE, "no answer for 45 s");
      const headers = { Accept: "text/event-stream", ...(this.cursor ? { "Last-Event-ID": this.cursor } : {}) };
      const response = await this.#options.fetch(this.#options.url, { headers, cache: "no-store", signal: abort.signal });
      if (response.status === 204) return { done: true };
      if (!response.ok || !/^text\/event-stream\b/i.test(response.headers.get("content-type") || "")) return await refused(response);
      if (this.cursor) this.resumes += 1;
      this.#phase("open", {});
      await this.#read(response.body.getReader(), decoder, arm);
      return { reason: "the stream ended before the run did", retry: decoder.retry };
    } catch (error) {
      // A broken connection is the expected case here: its reason is shown, and the loop comes back with the cursor.
      const cause = abort.signal.aborted ? abort.signal.reason : error;
      return { reason: String(cause?.message || cause), retry: decoder.retry };
    } finally {
      disarm();
      abort.abort();
    }
  }

  async #read(reader, decoder, arm) {
    for (;;) {
      const { done, value } = await reader.read();
      if (done || this.#closed) return;
      arm(this.#ended ? LINGER : SILENCE, "no bytes for 45 s");
      for (const frame of decoder.feed(value)) {
        if (this.#closed) return;
        const event = parse(frame.data);
        if (event) {
          this.#options.onEvent(event, frame.data);
          if (TERMINAL.has(event.type)) {
            this.#ended = true;
            arm(LINGER, "the run is over");
          }
        }
        if (frame.id) {
          this.cursor = frame.id;
          this.#failures = 0;
        }
      }
    }
  }
}

/** A frame that is no JSON object is skipped, not retried: the same bytes would come again. */
function parse(data) {
  try {
    const event = JSON.parse(data);
    return event !== null && typeof event === "object" && typeof event.type === "string" ? event : null;
  } catch (error) {
    console.warn("agentstream: a frame is not JSON and was skipped", error);
    return null;
  }
}

async function refused(response) {
  const problem = await problemOf(response);
  if (FINAL.has(response.status)) return { lost: { status: response.status, problem } };
  const wait = Number(response.headers.get("retry-after"));
  return { reason: problem.message, atLeast: wait > 0 ? Math.min(wait, 60) * 1000 : 0 };
}
