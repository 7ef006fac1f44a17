/**
 * Values as people read them: numbers, times, sizes and JSON go in, short texts come out.
 * Everything here is pure; the present is an argument.
 * It does not know events or the page.
 */

export function duration(ms) {
  if (!(ms >= 0)) return "";
  if (ms < 1000) return `${Math.round(ms)} ms`;
  const s = ms / 1000;
  if (s < 10) return `${s.toFixed(1)} s`;
  if (s < 100) return `${Math.round(s)} s`;
  const minutes = Math.round(s / 60);
  return minutes < 100 ? `${minutes} min` : minutes < 2880 ? `${Math.round(minutes / 60)} h` : `${Math.round(minutes / 1440)} d`;
}

/** How long ago, coarsely: ages are glanced at, not measured. */
export const age = (ms) => (ms < 100_000 ? `${Math.max(1, Math.round(ms / 1000))} s` : duration(ms));

export function size(bytes) {
  if (bytes < 1000) return `${bytes} B`;
  if (bytes < 1e6) return `${(bytes / 1e3).toFixed(bytes < 1e4 ? 1 : 0)} kB`;
  return `${(bytes / 1e6).toFixed(1)} MB`;
}

export function short(n) {
  if (n < 10_000) return String(n);
  return n < 1e6 ? `${(n / 1e3).toFixed(1)}k` : `${(n / 1e6).toFixed(1)}M`;
}

/** Milliseconds since the epoch from whatever a list gives: ms, seconds or an ISO date. */
export function epoch(value) {
  if (typeof value === "number") return value > 1e11 ? value : value * 1000;
  return typeof value === "string" ? Date.parse(value) : NaN;
}

export const oneLine = (text) => text.replace(/\s+/g, " ").trim();

export const clip = (text, length) => (text.length > length ? `${text.slice(0, length - 1)}…` : text);

export const plain = (value) => (typeof value === "string" ? value : JSON.stringify(value));

export const pretty = (value) => (typeof value === "string" ? value : JSON.stringify(value, null, 2));
