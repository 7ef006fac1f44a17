/**
 * Elements without markup strings: a tag, properties and children go in, an element comes out.
 * Text is only ever inserted as text nodes, so nothing that an event carries can become markup.
 * It does not know the page.
 */

/** Properties: `class`, `data` (an object), `on` (an object of listeners), anything else is an attribute; null and false leave it out. */
export function h(tag, properties, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "class") element.className = value;
    else if (name === "data") Object.assign(element.dataset, value);
    else if (name === "on") for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export const $ = (id) => document.getElementById(id);

export function svg(tag, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes || {})) element.setAttribute(name, String(value));
  element.append(...children);
  return element;
}

/** Longest text that is put into the page of one block; the whole stands in the events. */
const SHOWN = 400_000;

/** A text node that follows a growing text: what is new is appended, so a long stream costs what it adds. */
export class Growing {
  node = document.createTextNode("");
  #shown = 0;
  #cut = false;

  /** `text` is a prefix or an extension of what was given before: that is all that streaming and time travel can do. */
  set(text) {
    const cut = text.length > SHOWN;
    if (cut && this.#cut) return;
    if (text.length === this.#shown && !this.#cut) return;
    if (this.#cut || text.length < this.#shown) this.node.data = text;
    else this.node.appendData(text.slice(this.#shown, SHOWN));
    if (cut) this.node.appendData("\n… cut here; the events have it all");
    this.#cut = cut;
    this.#shown = text.length;
  }
}

/** Sets text only when it changed: an untouched node costs no layout. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export const attribute = (element, name, value) => {
  if (element.getAttribute(name) !== value) element.setAttribute(name, value);
};
