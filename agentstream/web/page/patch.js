/**
 * RFC 6902 on plain JSON values: a document and operations go in, a new document comes out.
 * Parts that no operation touches are shared with the old document; an operation that does not fit leaves it as it was.
 * It does not know what the document is for, and it never changes its arguments.
 */

const keys = (pointer) => (pointer === "" ? [] : pointer.slice(1).split("/").map((key) => key.replace(/~1/g, "/").replace(/~0/g, "~")));

export function patch(document, ops) {
  let now = document;
  for (const op of ops || []) {
    try {
      now = apply(now, op);
    } catch (error) {
      if (!(error instanceof RangeError)) throw error; // only "does not fit" is ours
    }
  }
  return now;
}

function apply(document, op) {
  const path = keys(op.path || "");
  switch (op.op) {
    case "add": return put(document, path, op.value, true);
    case "replace": return put(document, path, op.value, false);
    case "remove": return remove(document, path);
    case "copy": return put(document, path, read(document, keys(op.from)), true);
    case "move": {
      const from = keys(op.from);
      return put(remove(document, from), path, read(document, from), true);
    }
    default: return document; // `test` asserts; a reader of accepted events has nothing to assert
  }
}

const container = (value) => value !== null && typeof value === "object";
const own = (value, key) => Object.prototype.hasOwnProperty.call(value, key);

function read(value, path) {
  let now = value;
  for (const key of path) {
    if (!container(now) || !own(now, key)) throw new RangeError(key);
    now = now[key];
  }
  return now;
}

function index(list, key, insert) {
  const at = key === "-" ? list.length : Number(key);
  if (!Number.isInteger(at) || at < 0 || at > list.length - (insert ? 0 : 1)) throw new RangeError(key);
  return at;
}

/** A copy of `value` in which `key` holds `inner`; defined, not assigned, so `__proto__` is a key like any other. */
function set(value, key, inner) {
  const copy = { ...value };
  Object.defineProperty(copy, key, { value: inner, enumerable: true, configurable: true, writable: true });
  return copy;
}

function put(value, path, inner, insert) {
  if (!path.length) return inner;
  if (!container(value)) throw new RangeError(path[0]);
  const [key, ...rest] = path;
  if (Array.isArray(value)) {
    const copy = value.slice();
    const at = index(value, key, insert && !rest.length);
    if (rest.length) copy[at] = put(value[at], rest, inner, insert);
    else copy.splice(at, insert ? 0 : 1, inner);
    return copy;
  }
  if (rest.length && !own(value, key)) throw new RangeError(key);
  return set(value, key, rest.length ? put(value[key], rest, inner, insert) : inner);
}

function remove(value, path) {
  if (!path.length) return null;
  if (!container(value)) throw new RangeError(path[0]);
  const [key, ...rest] = path;
  if (Array.isArray(value)) {
    const copy = value.slice();
    const at = index(value, key, false);
    if (rest.length) copy[at] = remove(value[at], rest);
    else copy.splice(at, 1);
    return copy;
  }
  if (!own(value, key)) throw new RangeError(key);
  if (rest.length) return set(value, key, remove(value[key], rest));
  const copy = { ...value };
  delete copy[key];
  return copy;
}
