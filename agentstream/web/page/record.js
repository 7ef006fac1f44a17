/**
 * What a reader received: events go in one by one, the live state and the state at any earlier `seq` come out.
 * A state is kept every few hundred events (they share their parts, so this is cheap) and the rest is folded again on demand.
 * It does not know the connection or the page.
 */
import { EMPTY, fold } from "./fold.js";

const EVERY = 256;

export class Recording {
  events = [];
  raws = [];
  state = EMPTY;
  generation = 0; // rises when everything before is void: views start anew
  #marks = [{ index: 0, state: EMPTY }];
  #last = null;

  /** False for a duplicate. */
  add(event, raw) {
    const state = fold(this.state, event);
    if (event.type === "reset") {
      this.events = [];
      this.raws = [];
      this.generation += 1;
      this.#marks = [{ index: 0, state }];
      this.#last = null;
      this.state = state;
      return true;
    }
    if (state === this.state) return false;
    this.state = state;
    this.events.push(event);
    this.raws.push(raw);
    if (this.events.length % EVERY === 0) this.#marks.push({ index: this.events.length, state });
    return true;
  }

  /** How many events have a seq of at most `seq`. */
  upTo(seq) {
    let low = 0;
    let high = this.events.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.events[middle].seq <= seq) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  at(seq) {
    const target = this.upTo(seq);
    if (target === this.events.length) return this.state;
    if (this.#last?.index === target) return this.#last.state;
    let mark = this.#marks[0];
    for (const candidate of this.#marks) if (candidate.index <= target) mark = candidate;
    let { state } = mark;
    for (let i = mark.index; i < target; i += 1) state = fold(state, this.events[i]);
    this.#last = { index: target, state };
    return state;
  }
}
