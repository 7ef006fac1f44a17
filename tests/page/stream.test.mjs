import assert from "node:assert/strict";
import test from "node:test";

import { Follower, backoff } from "../../agentstream/web/page/follow.js";
import { Decoder, MAX_EVENT } from "../../agentstream/web/page/sse.js";
import { frame, script } from "./events.mjs";

const bytes = (text) => new TextEncoder().encode(text);
const decode = (pieces) => {
  const decoder = new Decoder();
  return { events: pieces.flatMap((piece) => decoder.feed(piece)), decoder };
};

const CASES = {
  "line ends of all three kinds": ["data: a\r\rdata: b\n\ndata: c\r\n\r\n", ["a", "b", "c"]],
  "several data lines are one event": ["data: a\ndata\ndata:b\n\n", ["a\n\nb"]],
  "one space goes, others stay": ["data:  a \ndata:\tb\n\n", [" a \n\tb"]],
  "comments and unknown fields are nothing": [": hb\n:x\nfoo: 1\ndata: a\n: mid\n\n", ["a"]],
  "names count by case": ["Data: a\n data: b\ndata: c\n\n", ["c"]],
  "an unfinished event is never given out": ["data: a\n\ndata: b\n", ["a"]],
  "an event without data is none": ["event: x\nid: 1\n\n", []],
  "one byte order mark goes": ["\uFEFFdata: a\n\n", ["a"]],
  "a second byte order mark is part of a name": ["\uFEFF\uFEFFdata: a\n\ndata: b\n\n", ["b"]],
  "separators of other kinds are data": ["data: a\u2028\u0085\u000bb\n\n", ["a\u2028\u0085\u000bb"]],
  "letters of several bytes": ["data: Größe 🙂 ✓\n\n", ["Größe 🙂 ✓"]],
};

for (const [name, [text, expected]] of Object.entries(CASES)) {
  test(`server-sent events: ${name}, at every cut`, () => {
    const all = bytes(text);
    for (let cut = 0; cut <= all.length; cut += 1) {
      const { events } = decode([all.slice(0, cut), all.slice(cut)]);
      assert.deepEqual(events.map((event) => event.data), expected, `cut at ${cut}`);
    }
    assert.deepEqual(decode(Array.from(all, (_, i) => all.slice(i, i + 1))).events.map((event) => event.data), expected);
  });
}

test("ids persist, an id with NUL is ignored, and an unfinished event's id does not count", () => {
  const { events, decoder } = decode([bytes("id: 1\ndata: a\n\ndata: b\n\nid: 2\0\ndata: c\n\nid: 3\ndata: d\n")]);
  assert.deepEqual(events.map((event) => event.id), ["1", "1", "1"]);
  assert.equal(decoder.lastId, "1");
});

test("retry is digits only", () => {
  assert.equal(decode([bytes("retry: 1200\nretry: 1000x\nretry: -5\nretry:\n\n")]).decoder.retry, 1200);
});

test("an endless event is an error, not memory", () => {
  const decoder = new Decoder();
  const piece = bytes("x".repeat(1 << 20));
  assert.throws(() => { for (let i = 0; i <= MAX_EVENT >> 20; i += 1) decoder.feed(piece); }, RangeError);
});

// --- the follower -----------------------------------------------------------------------------------------------------

const EVENTS = script().map((event) => frame(event));
const seqOf = (cursor) => (cursor ? Number(cursor.split(".")[2]) : 0);

/** A server of the scripted run: `cuts[n]` is where connection n breaks, in bytes; `end` says how. */
function server(cuts, end = "error") {
  const calls = [];
  const fetch = async (_url, { headers }) => {
    const cursor = headers["Last-Event-ID"] || "";
    const all = bytes(`retry: 600\n: ok\n${EVENTS.slice(seqOf(cursor)).join("")}`);
    const cut = cuts[calls.length];
    calls.push(cursor);
    const body = new ReadableStream({
      pull(controller) {
        controller.enqueue(all.slice(0, cut));
        if (cut === undefined || end === "close") controller.close();
        else queueMicrotask(() => controller.error(new TypeError("network")));
      },
    }, { highWaterMark: 0 });
    return new Response(body, { headers: { "content-type": "text/event-stream; charset=utf-8" } });
  };
  return { fetch, calls };
}

async function follow(fetch, { after, limit = 40 } = {}) {
  const seen = [];
  const phases = [];
  let waits = 0;
  const follower = new Follower({
    url: "runs/r/events", fetch, random: () => 0.5,
    after: after || ((ms, run) => {
      if (ms === 45_000 || ms === 2_000) return () => {}; // the watchdogs: they must not be what ends a test
      if ((waits += 1) > limit) throw new Error("it does not stop coming back");
      queueMicrotask(run);
      return () => {};
    }),
    onEvent: (event) => seen.push(event.seq),
    onPhase: (name, detail) => phases.push([name, detail]),
  });
  await follower.run();
  return { seen, phases, follower };
}

const EXPECTED = EVENTS.map((_, i) => i + 1);

for (const end of ["error", "close"]) {
  test(`a stream cut at every byte (${end}) and resumed has every event once`, async () => {
    const length = bytes(`retry: 600\n: ok\n${EVENTS.join("")}`).length;
    for (let cut = 0; cut < length; cut += 1) {
      const { fetch } = server([cut], end);
      const { seen } = await follow(fetch);
      assert.deepEqual(seen, EXPECTED, `cut at ${cut} of ${length}`);
    }
  });
}

test("cuts again and again: the cursor is the last whole event, and resumes are counted", async () => {
  const { fetch, calls } = server([400, 700, 900, 40, 1200]);
  const { seen, phases, follower } = await follow(fetch);
  assert.deepEqual(seen, EXPECTED);
  assert.equal(calls.length, 6);
  assert.equal(follower.resumes, 5);
  assert.equal(phases.at(-1)[0], "done");
});

const answers = (list) => {
  let n = 0;
  return async () => (typeof list[n] === "function" ? list[n++]() : list[n++]);
};
const problem = (status, code) => new Response(JSON.stringify({ code, detail: code }), { status, headers: { "content-type": "application/problem+json" } });
const whole = () => server([]).fetch("", { headers: {} });

test("204 is the end; 404 and 410 are a lost run and say so", async () => {
  assert.equal((await follow(answers([new Response(null, { status: 204 })]))).phases.at(-1)[0], "done");
  for (const status of [404, 410]) {
    const [name, detail] = (await follow(answers([problem(status, "run-unknown")]))).phases.at(-1);
    assert.deepEqual([name, detail.status, detail.problem.code], ["lost", status, "run-unknown"]);
  }
});

test("an overloaded server, a proxy's page and a refused connection are asked again", async () => {
  const html = () => new Response("<p>hi", { headers: { "content-type": "text/html" } });
  const refused = () => { throw new TypeError("refused"); };
  const { seen, phases } = await follow(answers([problem(503, "x"), problem(429, "x"), html, refused, whole]));
  assert.deepEqual(seen, EXPECTED);
  assert.equal(phases.filter(([name]) => name === "waiting").length, 4);
});

test("a silent connection is cut by the watchdog and resumed", async () => {
  const silent = () => new Response(new ReadableStream({ start(c) { c.enqueue(bytes(EVENTS[0])); } }), { headers: { "content-type": "text/event-stream" } });
  let fired = false;
  const { seen, phases } = await follow((url, init) => {
    if (fired) return server([]).fetch(url, init);
    const response = silent();
    const reader = response.body.getReader();
    const read = reader.read.bind(reader);
    reader.read = () => Promise.race([read(), new Promise((_, fail) => init.signal.addEventListener("abort", () => fail(init.signal.reason)))]);
    return { ok: true, status: 200, headers: response.headers, body: { getReader: () => reader } };
  }, {
    after: (ms, run) => {
      if (ms !== 45_000) { if (ms !== 2_000) queueMicrotask(run); return () => {}; }
      const timer = fired ? null : setTimeout(() => { fired = true; run(); }, 5);
      return () => clearTimeout(timer);
    },
  });
  assert.deepEqual(seen, EXPECTED);
  assert.match(phases.find(([name]) => name === "waiting")[1].reason, /45 s/);
});

test("the wait grows, is jittered, and stays within half a second and fifteen", () => {
  for (const random of [() => 0, () => 0.999]) {
    for (let failures = 0; failures < 30; failures += 1) {
      for (const retry of [undefined, 1, 2_000, 99_999]) {
        const wait = backoff(failures, retry, random);
        assert.ok(wait >= 500 && wait <= 15_000);
      }
    }
  }
  assert.ok(backoff(4, 500, () => 0) > backoff(1, 500, () => 0.999));
});
