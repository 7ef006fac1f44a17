/**
 * Server-sent events by the WHATWG rules: bytes go in, cut anywhere, whole events come out.
 * Each event is `{id, type, data}`; `lastId` and `retry` are what the stream has set so far, and an unfinished event is never given out.
 * It does not know connections, JSON or time.
 */

/** Longest event in characters; a peer that sends more without a blank line is cut off instead of filling the memory. */
export const MAX_EVENT = 16 * 1024 * 1024;

export class Decoder {
  lastId = "";
  retry = undefined;
  #utf8 = new TextDecoder("utf-8"); // replaces bad bytes and takes exactly one leading BOM, also when it comes byte by byte
  #line = [];
  #held = 0; // characters kept: pieces of the unfinished line and the data of the unfinished event
  #afterCr = false;
  #data = [];
  #type = "";
  #id = "";

  /** @param {Uint8Array} bytes */
  feed(bytes) {
    const text = this.#utf8.decode(bytes, { stream: true });
    const events = [];
    let from = 0;
    if (this.#afterCr && text.length) {
      this.#afterCr = false;
      if (text.charCodeAt(0) === 10) from = 1; // the LF of a CRLF whose CR already ended the line
    }
    const ends = /\r\n|\r|\n/g;
    ends.lastIndex = from;
    for (let end = ends.exec(text); end; end = ends.exec(text)) {
      this.#line.push(text.slice(from, end.index));
      from = ends.lastIndex;
      if (end[0] === "\r" && from === text.length) this.#afterCr = true;
      const line = this.#line.length === 1 ? this.#line[0] : this.#line.join("");
      this.#line = [];
      const event = this.#take(line);
      if (event) events.push(event);
    }
    if (from < text.length) {
      this.#line.push(text.slice(from));
      this.#held += text.length - from;
    }
    if (this.#held > MAX_EVENT) throw new RangeError(`an event of the stream is longer than ${MAX_EVENT} characters`);
    return events;
  }

  #take(line) {
    if (line === "") return this.#dispatch();
    const colon = line.indexOf(":");
    if (colon === 0) return null;
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(line.charCodeAt(colon + 1) === 32 ? colon + 2 : colon + 1);
    if (field === "data") {
      this.#data.push(value);
      this.#held += value.length;
    } else if (field === "event") this.#type = value;
    else if (field === "id" && !value.includes("\0")) this.#id = value;
    else if (field === "retry" && /^[0-9]+$/.test(value)) this.retry = Number(value);
    return null;
  }

  #dispatch() {
    this.lastId = this.#id;
    const event = this.#data.length ? { id: this.#id, type: this.#type || "message", data: this.#data.join("\n") } : null;
    this.#data = [];
    this.#type = "";
    this.#held = 0;
    return event;
  }
}
