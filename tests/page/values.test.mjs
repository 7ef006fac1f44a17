import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import test from "node:test";

import { age, duration, epoch, size } from "../../agentstream/web/page/format.js";
import { patch } from "../../agentstream/web/page/patch.js";
import { formOf, inputOf } from "../../agentstream/web/page/schema.js";
import { codeOf, csv, numeric, python, streamed } from "../../agentstream/web/page/text.js";

const PAGE = new URL("../../agentstream/web/page/", import.meta.url);

test("patches make new documents and leave what does not fit", () => {
  const before = Object.freeze({ a: Object.freeze([1, 2]), "x/y": 1 });
  const after = patch(before, [
    { op: "add", path: "/a/-", value: 3 }, { op: "replace", path: "/x~1y", value: 2 }, { op: "add", path: "/b", value: {} },
    { op: "remove", path: "/a/0" }, { op: "remove", path: "/none" }, { op: "copy", from: "/a", path: "/c" }, { op: "move", from: "/b", path: "/d" },
  ]);
  assert.deepEqual(after, { a: [2, 3], "x/y": 2, c: [2, 3], d: {} });
  assert.deepEqual(before, { a: [1, 2], "x/y": 1 });
  assert.deepEqual(patch(before, [{ op: "replace", path: "", value: 7 }]), 7);
});

test("CSV: quotes, line ends, a cap", () => {
  assert.deepEqual(csv('a,"b ""x"", y"\r\n1,\n\n"two\nlines",3', 9).rows, [["a", 'b "x", y'], ["1", ""], ["two\nlines", "3"]]);
  assert.deepEqual(csv("a\n1\n2\n3", 2), { rows: [["a"], ["1"]], more: true });
  assert.deepEqual(csv("a\n1", 2), { rows: [["a"], ["1"]], more: false });
  assert.deepEqual(numeric([["North", "18.4 ± 2.1"], ["Coast", "-3"]]), [false, true]);
});

test("coloured Python joins to the source", () => {
  const source = 'def f(x):\n    """doc"""\n    return f"{x}" + \'a\\\'b\'  # end\ny = 1_000.5e3\nunclosed = "abc';
  const tokens = python(source);
  assert.equal(tokens.map(([, text]) => text).join(""), source);
  assert.ok(tokens.some(([kind, text]) => kind === "k" && text === "return"));
  assert.ok(tokens.some(([kind, text]) => kind === "c" && text === "# end"));
});

test("streamed arguments only ever grow, whatever the cut", () => {
  const text = JSON.stringify({ code: 'print("ü\\n")\n\tx = "\\u00e9"' });
  let before = "";
  for (let cut = 11; cut <= text.length; cut += 1) {
    const now = streamed(text.slice(0, cut));
    if (!now.startsWith("{")) {
      assert.ok(now.startsWith(before) || before === "", `cut at ${cut}`);
      before = now;
    }
  }
  assert.equal(before, JSON.parse(text).code);
  assert.deepEqual(codeOf({ code: "x", seconds: 3 }), { code: "x", rest: { seconds: 3 } });
  assert.deepEqual(codeOf({ query: "q" }), { code: "q", rest: null });
  assert.deepEqual(codeOf([1]), { code: null, rest: [1] });
});

test("a team's schema becomes a form, and the form an input", () => {
  assert.equal(formOf({ type: "string" }).kind, "text");
  assert.equal(formOf({}).kind, "text");
  assert.equal(formOf({ type: "array", items: {} }).kind, "json");
  const form = formOf({
    $ref: "#/$defs/Task",
    $defs: { Task: { type: "object", required: ["question", "n"], properties: {
      title: { type: "string" }, question: { type: "string" }, n: { type: "integer" }, strict: { type: "boolean", default: true },
      note: { anyOf: [{ type: "string" }, { type: "null" }] }, extra: { type: "object" },
    } } },
  });
  assert.equal(form.main, "question");
  assert.deepEqual(form.fields.map((field) => field.name), ["title", "n", "strict", "note"]);
  assert.deepEqual(inputOf(form, "why?", { n: "3", strict: false, note: "", title: "" }), { question: "why?", n: 3, strict: false });
  assert.throws(() => inputOf(form, " ", {}), /question/);
  assert.throws(() => inputOf(form, "why?", {}), /“n”/);
  assert.throws(() => inputOf(form, "why?", { n: "x" }), /number/);
  assert.throws(() => inputOf(formOf({ type: "array" }), "[1", {}), /JSON/);
});

test("times and sizes read short", () => {
  assert.deepEqual([duration(412), duration(1234), duration(61_000), duration(-1)], ["412 ms", "1.2 s", "61 s", ""]);
  assert.deepEqual([age(200), age(7_100), age(3_600_000)], ["1 s", "7 s", "60 min"]);
  assert.deepEqual([size(96), size(1234), size(5_200_000)], ["96 B", "1.2 kB", "5.2 MB"]);
  assert.equal(epoch(1_700_000_000), epoch(1_700_000_000_000));
});

test("nothing inline, nothing from another address, no markup from data", () => {
  for (const name of readdirSync(PAGE)) {
    const text = readFileSync(new URL(name, PAGE), "utf8");
    assert.doesNotMatch(text.replaceAll("http://www.w3.org/2000/svg", ""), /https?:\/\/|["'(]\/\//, name);
    if (name.endsWith(".js")) assert.doesNotMatch(text, /innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|setAttribute\("style"/, name);
  }
  const index = readFileSync(new URL("index.html", PAGE), "utf8");
  assert.doesNotMatch(index, /<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)/);
});

/** Relative luminance and contrast as WCAG 2 defines them. */
function contrast(a, b) {
  const luminance = (hex) => {
    const [r, g, bl] = [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16) / 255).map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * bl;
  };
  const [high, low] = [luminance(a), luminance(b)].sort((x, y) => y - x);
  return (high + 0.05) / (low + 0.05);
}

test("every colour of words has 4.5:1 on every ground, in both schemes", () => {
  const css = readFileSync(new URL("page.css", PAGE), "utf8");
  const schemes = [...css.matchAll(/:root \{([^}]*)\}/g)].map((match) => Object.fromEntries([...match[1].matchAll(/--([\w-]+): (#[0-9a-f]{6})/g)].map((m) => [m[1], m[2]])));
  assert.equal(schemes.length, 2);
  for (const tokens of schemes) {
    for (const [name, color] of Object.entries(tokens)) {
      if (["bg", "panel", "sunk", "code", "line", "on", "focus"].includes(name)) continue;
      for (const ground of ["bg", "panel", "sunk", "code"]) assert.ok(contrast(color, tokens[ground]) >= 4.5, `${name} on ${ground}: ${contrast(color, tokens[ground]).toFixed(2)}`);
    }
    for (const fill of ["ok", "bad", "executor"]) assert.ok(contrast(tokens.on, tokens[fill]) >= 4.5, `on ${fill}`);
  }
});
