/**
 * Text formats that cards show: source code, streamed arguments and CSV go in, tokens, code and rows come out.
 * Everything here is pure and tolerant: a wrong or cut text gives what can be read of it.
 * It does not know events or the page.
 */

const WORDS = new Set(
  "False None True and as assert async await break class continue def del elif else except finally for from global if import in is lambda nonlocal not or pass raise return try while with yield match case".split(" "),
);
const PYTHON = /(#[^\n]*)|((?:\b[rbfuRBFU]{1,2})?(?:"""[\s\S]*?(?:"""|$)|'''[\s\S]*?(?:'''|$)|"(?:\\.|[^"\\\n])*"?|'(?:\\.|[^'\\\n])*'?))|([A-Za-z_]\w*)|(\b\d[\d_.eExXa-fA-F]*)/g;

/** Python as `[kind, text]` pairs that join to the source; kinds: k keyword, s string, c comment, n number, "" the rest. */
export function python(source) {
  const tokens = [];
  let from = 0;
  const add = (kind, text) => {
    const last = tokens[tokens.length - 1];
    if (last && last[0] === kind) last[1] += text;
    else if (text) tokens.push([kind, text]);
  };
  for (const match of source.matchAll(PYTHON)) {
    add("", source.slice(from, match.index));
    from = match.index + match[0].length;
    const kind = match[1] ? "c" : match[2] ? "s" : match[4] ? "n" : WORDS.has(match[0]) ? "k" : "";
    add(kind, match[0]);
  }
  add("", source.slice(from));
  return tokens;
}

const OPENING = /^\s*\{\s*"(?:code|source|script|sql|query|command)"\s*:\s*"/;
const ESCAPES = { n: "\n", t: "\t", r: "\r", b: "\b", f: "\f" };

/** Streamed arguments as code: of a JSON object that begins with its code, that string as far as it has come. */
export function streamed(text) {
  const opening = OPENING.exec(text);
  if (!opening) return text;
  let code = "";
  const piece = /[^"\\]+|\\u([0-9a-fA-F]{4})|\\([^u])/y;
  piece.lastIndex = opening[0].length;
  for (let match = piece.exec(text); match; match = piece.exec(text)) {
    if (match[1]) code += String.fromCharCode(parseInt(match[1], 16));
    else if (match[2]) code += ESCAPES[match[2]] || match[2];
    else code += match[0];
  }
  return code;
}

/** The code among a call's complete arguments: `{code, rest}`; `code` is null when there is none. */
export function codeOf(args) {
  if (typeof args === "string") return { code: args, rest: null };
  if (args === null || typeof args !== "object" || Array.isArray(args)) return { code: null, rest: args };
  const key = ["code", "source", "script", "sql", "query", "command"].find((name) => typeof args[name] === "string");
  if (!key) return { code: null, rest: Object.keys(args).length ? args : null };
  const rest = Object.fromEntries(Object.entries(args).filter(([name]) => name !== key));
  return { code: args[key], rest: Object.keys(rest).length ? rest : null };
}

/** RFC 4180 with the usual liberties: at most `limit` rows and whether there are more. */
export function csv(source, limit) {
  const rows = [];
  let row = [];
  let cell = "";
  let quoted = false;
  let any = false;
  const endRow = () => {
    row.push(cell);
    if (row.length > 1 || row[0] !== "") rows.push(row);
    row = [];
    cell = "";
    any = false;
  };
  for (let i = source.charCodeAt(0) === 0xfeff ? 1 : 0; i < source.length; i += 1) {
    const c = source[i];
    any = true;
    if (quoted) {
      if (c !== '"') cell += c;
      else if (source[i + 1] === '"') cell += source[(i += 1)];
      else quoted = false;
    } else if (c === '"' && cell === "") quoted = true;
    else if (c === ",") {
      row.push(cell);
      cell = "";
    } else if (c === "\n" || c === "\r") {
      if (c === "\r" && source[i + 1] === "\n") i += 1;
      endRow();
      if (rows.length > limit) return { rows: rows.slice(0, limit), more: true };
    } else cell += c;
  }
  if (any) endRow();
  return { rows: rows.slice(0, limit), more: rows.length > limit };
}

/** For each column whether all its filled cells are numbers. */
export function numeric(rows) {
  const width = Math.max(0, ...rows.map((row) => row.length));
  return Array.from({ length: width }, (_, i) => {
    const cells = rows.map((row) => row[i]).filter((cell) => cell !== undefined && cell !== "");
    return cells.length > 0 && cells.every((cell) => /^\s*[-+−]?[\d.,\u202f ]*\d(?:[eE][-+]?\d+)?\s*%?(?:\s*±.*)?$/.test(cell));
  });
}
