/**
 * The input of a team as a form: a JSON schema goes in, what to ask comes out; filled-in values go in, the input comes out.
 * A string is one box; an object is its main text in the box and its other simple properties as fields; all else is written as JSON.
 * It does not know the page or the server; the server alone decides what is valid.
 */

const MAIN = ["question", "prompt", "query", "message", "task", "text", "input", "topic"];
const SIMPLE = new Set(["string", "integer", "number", "boolean"]);

/** `{kind: "text" | "object" | "json", main, fields: [{name, type, choices, required, label, hint, initial}]}`. */
export function formOf(schema) {
  const top = resolve(schema, schema);
  if (!top || !Object.keys(top).length || top.type === "string") return { kind: "text", main: "", fields: [] };
  if (top.type !== "object" || !top.properties) return { kind: "json", main: "", fields: [] };
  const required = new Set(top.required || []);
  const fields = [];
  const texts = [];
  for (const [name, raw] of Object.entries(top.properties)) {
    const inner = resolve(raw, schema);
    const type = SIMPLE.has(inner?.type) ? inner.type : "";
    if (!type && required.has(name)) return { kind: "json", main: "", fields: [] };
    if (!type) continue; // optional and not simple: its default stands
    if (type === "string" && !inner.enum) texts.push(name);
    fields.push({
      name, type, choices: inner.enum || null, required: required.has(name), label: inner.title || name,
      hint: raw.description || inner.description || "", initial: raw.default ?? inner.default,
    });
  }
  const main = MAIN.find((name) => texts.includes(name)) || texts.find((name) => required.has(name)) || texts[0];
  if (!main) return { kind: "json", main: "", fields: [] };
  return { kind: "object", main, fields: fields.filter((field) => field.name !== main) };
}

/** References of the schema's own and `T | None` unfolded; anything else as it is. */
function resolve(schema, root, depth = 0) {
  if (!schema || typeof schema !== "object" || depth > 8) return null;
  if (typeof schema.$ref === "string" && schema.$ref.startsWith("#/")) {
    const target = schema.$ref.slice(2).split("/").reduce((at, key) => at?.[key.replace(/~1/g, "/").replace(/~0/g, "~")], root);
    return resolve(target, root, depth + 1);
  }
  const options = (schema.anyOf || schema.oneOf || []).filter((option) => option.type !== "null");
  if (options.length) return resolve(options[0], root, depth + 1);
  if (schema.allOf?.length === 1) return resolve(schema.allOf[0], root, depth + 1);
  if (schema.enum && !schema.type) return { ...schema, type: typeof schema.enum[0] };
  return schema;
}

/** The input to send. Throws an Error that says what to do when the words do not make one. */
export function inputOf(form, text, values) {
  if (form.kind === "json") {
    try {
      return JSON.parse(text);
    } catch (error) {
      throw new Error(`This team takes JSON, and this is none yet: ${error.message}`);
    }
  }
  if (!text.trim()) throw new Error("Write a question first.");
  if (form.kind === "text") return text;
  const input = { [form.main]: text };
  for (const field of form.fields) {
    const value = values[field.name];
    if (field.type === "boolean") {
      if (field.required || (value !== undefined && value !== !!field.initial)) input[field.name] = !!value;
      continue;
    }
    if (value === undefined || value === "") {
      if (field.required) throw new Error(`Fill in “${field.label}”.`);
      continue;
    }
    if (field.type === "string") input[field.name] = value;
    else {
      const number = Number(value);
      if (!Number.isFinite(number)) throw new Error(`“${field.label}” must be a number.`);
      input[field.name] = number;
    }
  }
  return input;
}

// --- answers to questions of a run ------------------------------------------------------------------------------------

/** The few answers that there are, as pairs of words and value; null where a person must write. */
export function choicesOf({ ask, schema }) {
  if (ask === "approval") return [["Allow", true], ["Deny", false]];
  if (schema?.type === "boolean") return [["Yes", true], ["No", false]];
  if (Array.isArray(schema?.enum) && schema.enum.length <= 8) return schema.enum.map((value) => [String(value), value]);
  return null;
}

/** What may be written, in a few words. */
export function hintOf(schema) {
  const names = Object.keys(schema?.properties || {});
  if (names.length) return `JSON with ${names.slice(0, 6).join(", ")}`;
  return { string: "Your answer", integer: "A whole number", number: "A number" }[schema?.type] || "JSON";
}

/** The words as the value that the schema asks for. Throws an Error that says what to write when they are none. */
export function answerOf(schema, words) {
  if (!schema || schema.type === "string") return words;
  try {
    return JSON.parse(words);
  } catch {
    if (schema.type) throw new Error(`${hintOf(schema)} is asked for.`);
    return words;
  }
}
