/**
 * Simple plotly figures as SVG: a figure goes in, a picture of its bar, line and scatter traces comes out, or null when it has others.
 * It draws axes, a few ticks and the traces, nothing else; the full figure is in the card's JSON.
 * It does not know events, and it runs none of plotly's code.
 */
import { svg } from "./dom.js";

const W = 560;
const H = 260;
const PAD = { left: 54, right: 12, top: 26, bottom: 40 };
const POINTS = 2_000;

export function plot(figure) {
  const traces = Array.isArray(figure?.data) ? figure.data : [];
  const usable = traces.filter((t) => ["bar", "scatter", "scattergl", undefined].includes(t.type) && Array.isArray(t.y) && t.y.length && t.y.length <= POINTS && t.orientation !== "h");
  if (!usable.length || usable.length !== traces.length || usable.length > 8) return null;
  const xs = usable.map((t) => (Array.isArray(t.x) ? t.x : t.y.map((_, i) => i)));
  const numbers = xs.every((x) => x.every((v) => typeof v === "number")) && !usable.some((t) => t.type === "bar");
  const categories = numbers ? [] : [...new Set(xs.flat().map(String))];
  const ys = usable.flatMap((t) => t.y).filter(Number.isFinite);
  if (!ys.length) return null;
  const bars = usable.filter((t) => t.type === "bar");
  const y = scale(ticks(Math.min(...ys, ...(bars.length ? [0] : [])), Math.max(...ys, ...(bars.length ? [0] : []))), H - PAD.bottom, PAD.top);
  const flat = xs.flat();
  const x = numbers ? scale(ticks(Math.min(...flat), Math.max(...flat)), PAD.left, W - PAD.right) : null;
  const slot = (W - PAD.left - PAD.right) / Math.max(1, categories.length);
  const place = (value) => (numbers ? x.at(value) : PAD.left + slot * (categories.indexOf(String(value)) + 0.5));

  const root = svg("svg", { viewBox: `0 0 ${W} ${H}`, class: "plot", role: "img", "aria-label": titleOf(figure.layout?.title) || "chart" });
  for (const tick of y.ticks) {
    root.append(svg("line", { x1: PAD.left, x2: W - PAD.right, y1: y.at(tick), y2: y.at(tick), class: "grid" }));
    root.append(label(PAD.left - 6, y.at(tick) + 4, "end", format(tick)));
  }
  const names = numbers ? x.ticks.map((t) => [x.at(t), format(t)]) : categories.map((c) => [place(c), c]);
  const every = Math.ceil(names.length / 8);
  names.forEach(([at, text], i) => { if (i % every === 0) root.append(label(at, H - PAD.bottom + 16, "middle", text.slice(0, 14))); });
  usable.forEach((trace, n) => root.append(series(trace, xs[n], { n, bars, slot, place, y })));
  root.append(label(PAD.left, 14, "start", titleOf(figure.layout?.title), "title"), label(W / 2, H - 6, "middle", titleOf(figure.layout?.xaxis?.title)));
  return root;
}

function series(trace, xs, { n, bars, slot, place, y }) {
  const group = svg("g", { class: `series s${n + 1}` });
  if (trace.type === "bar") {
    const width = (slot * 0.72) / bars.length;
    const shift = (bars.indexOf(trace) - (bars.length - 1) / 2) * width;
    trace.y.forEach((v, i) => {
      if (!Number.isFinite(v)) return;
      const top = Math.min(y.at(v), y.at(0));
      group.append(svg("rect", { x: place(xs[i]) + shift - width / 2, y: top, width: Math.max(1, width - 1), height: Math.max(1, Math.abs(y.at(v) - y.at(0))), rx: 1.5, class: "fill" }));
    });
    return group;
  }
  const points = trace.y.map((v, i) => [place(xs[i]), Number.isFinite(v) ? y.at(v) : null]).filter((p) => p[1] !== null);
  const mode = trace.mode || "lines";
  if (mode.includes("lines")) group.append(svg("polyline", { points: points.map((p) => p.join(",")).join(" "), class: "line" }));
  if (mode.includes("markers")) for (const [cx, cy] of points) group.append(svg("circle", { cx, cy, r: 2.5, class: "fill" }));
  return group;
}

const titleOf = (title) => String((title && typeof title === "object" ? title.text : title) || "");
const format = (v) => (Math.abs(v) >= 1e4 ? `${+(v / 1e3).toPrecision(4)}k` : String(+v.toPrecision(6)));

function label(x, y, anchor, text, kind = "") {
  return svg("text", { x, y, "text-anchor": anchor, class: kind }, document.createTextNode(text));
}

/** Round marks that enclose the range. */
function ticks(low, high) {
  const span = high - low || Math.abs(high) || 1;
  const raw = span / 4;
  const magnitude = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * magnitude).find((m) => m >= raw);
  const marks = [];
  for (let v = Math.floor(low / step) * step; marks.length < 12; v += step) {
    marks.push(+v.toPrecision(12));
    if (v >= high) break;
  }
  return marks;
}

function scale(marks, from, to) {
  const low = marks[0];
  const high = marks[marks.length - 1];
  return { ticks: marks, at: (v) => Math.round((from + ((v - low) / (high - low || 1)) * (to - from)) * 10) / 10 };
}
