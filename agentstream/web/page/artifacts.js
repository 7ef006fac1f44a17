/**
 * Artifacts as cards' bodies: an artifact goes in, an element that shows its picture, table, chart, code or page comes out.
 * Data is inline (text as it is, bytes as base64) or behind the run's own artifact address; nothing else is ever loaded.
 * It does not know lanes or the stream.
 */
import { artifactPath, artifactText } from "./api.js";
import { h } from "./dom.js";
import { size } from "./format.js";
import { plot } from "./plot.js";
import { csv, numeric, python } from "./text.js";

const ROWS = 50;
const TEXT = 200_000; // longest text artifact that is shown whole

const isText = (mime) => /^text\/|\+json$|\+xml$|^application\/(json|javascript|xml|sql)$/.test(mime);
const isCode = (mime) => /^text\/(x-|javascript)|^application\/(json|javascript|sql)$/.test(mime);
const bare = (mime) => (mime || "").split(";")[0].trim().toLowerCase();

/** What kind of thing it is, in one word for the card's head. */
export function kindOf(artifact) {
  const mime = bare(artifact.mime);
  if (mime.startsWith("image/")) return "picture";
  if (mime === "text/csv") return "table";
  if (mime === "application/vnd.plotly.v1+json") return "chart";
  if (mime === "text/html") return "page";
  if (isCode(mime)) return "code";
  return isText(mime) ? "text" : "file";
}

/** The address of the bytes: our own route, or the inline data as an address. */
export function addressOf(run, artifact) {
  if (typeof artifact.data !== "string") return artifactPath(run, artifact.id);
  const mime = bare(artifact.mime) || "application/octet-stream";
  return isText(mime) ? `data:${mime};charset=utf-8,${encodeURIComponent(artifact.data)}` : `data:${mime};base64,${artifact.data}`;
}

/** @param {{onSize: () => void, onZoom: (src: string, name: string) => void}} hooks */
export function artifactBody(run, artifact, hooks) {
  const kind = kindOf(artifact);
  if (kind === "picture") return picture(run, artifact, hooks);
  if (kind === "file") return h("p", { class: "note" }, "Nothing to show here: ", download(run, artifact, "save the file"));
  if (typeof artifact.data === "string") return shown(kind, artifact, artifact.data);
  const box = h("div", {}, h("p", { class: "note" }, "Loading…"));
  artifactText(run, artifact.id).then(
    (text) => { box.replaceChildren(shown(kind, artifact, text)); hooks.onSize(); },
    (error) => box.replaceChildren(h("p", { class: "note bad" }, `Could not be loaded: ${error.message}`)),
  );
  return box;
}

export function download(run, artifact, words) {
  const link = h("a", { class: "save", href: "#", title: `Save ${artifact.name}` }, words);
  link.addEventListener("click", (event) => {
    event.preventDefault();
    h("a", { href: addressOf(run, artifact), download: artifact.name }).click();
  });
  return link;
}

function picture(run, artifact, hooks) {
  const image = h("img", { alt: artifact.name, data: { testid: hooks.gallery ? "output-picture" : "picture" }, decoding: "async" });
  const button = h("button", { type: "button", class: "picture", "aria-label": `Enlarge ${artifact.name}`, on: { click: () => hooks.onZoom(image.src, artifact.name) } }, image);
  image.addEventListener("load", hooks.onSize);
  image.addEventListener("error", () => button.replaceWith(h("p", { class: "note bad" }, "The picture could not be shown.")));
  image.src = addressOf(run, artifact);
  return button;
}

function shown(kind, artifact, text) {
  if (kind === "table") return table(text);
  if (kind === "chart") return chart(text);
  if (kind === "page") return h("iframe", { sandbox: "", srcdoc: text, title: artifact.name, loading: "lazy" });
  return code(text.length > TEXT ? `${text.slice(0, TEXT)}\n… ${size(text.length - TEXT)} more` : text, /python/.test(artifact.mime) || /\.py$/.test(artifact.name));
}

export function code(text, isPython) {
  const pre = h("pre", {});
  if (isPython) pre.append(...python(text).map(([kind, part]) => (kind ? h("span", { class: kind }, part) : part)));
  else pre.append(text);
  return pre;
}

function table(text) {
  const { rows, more } = csv(text, ROWS + 1);
  if (!rows.length) return h("p", { class: "note" }, "The table is empty.");
  const [head, ...body] = rows;
  const right = numeric(body).map((yes) => (yes ? "num" : null));
  const row = (cells, tag) => h("tr", {}, head.map((_, i) => h(tag, { class: right[i] }, cells[i] ?? "")));
  const element = h("table", {}, h("thead", {}, row(head, "th")), h("tbody", {}, body.map((cells) => row(cells, "td"))));
  return h("div", { class: "scroll" }, element, more ? h("p", { class: "note" }, `The first ${ROWS} rows.`) : null);
}

function chart(text) {
  let figure;
  try {
    figure = JSON.parse(text);
  } catch {
    return h("p", { class: "note bad" }, "The chart is not valid JSON.");
  }
  const drawing = plot(figure);
  const source = h("details", {}, h("summary", {}, "Figure as JSON"), code(JSON.stringify(figure, null, 2), false));
  return h("div", {}, drawing || h("p", { class: "note" }, "A plotly figure with traces that this page does not draw."), source);
}
