// Elements without markup from strings: what a file or a server calls itself never becomes HTML.
import { translate } from "./text.js";

const SVG = "http://www.w3.org/2000/svg";

/**
 * An element. `t` is its text, a key of text.js or [key, values]; `names` is a text of the data, {en, zh};
 * `label`, `hint` and `placeholder` are keys for attributes; `on` has listeners; the rest are properties or attributes.
 */
export function el(tag, options = {}, ...children) {
  const node = document.createElement(tag);
  const { t, names, label, hint, placeholder, on = {}, attributes = {}, ...properties } = options;
  Object.assign(node, properties);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  for (const [event, listener] of Object.entries(on)) node.addEventListener(event, listener);
  if (t) say(node, ...[t].flat());
  if (names) node.dataset.names = JSON.stringify(names);
  if (label) node.dataset.label = [label].flat().length > 1 ? JSON.stringify(label) : label;
  if (hint) node.dataset.hint = hint;
  if (placeholder) node.dataset.placeholder = placeholder;
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  if (names || label || hint || placeholder) translate(node);
  return node;
}

/** Give an element a text that follows the language. */
export function say(node, key, values) {
  node.dataset.t = key;
  if (values) node.dataset.values = JSON.stringify(values);
  else delete node.dataset.values;
  translate(node);
}

/** An element of SVG. */
export function svg(tag, attributes = {}, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children.flat(Infinity));
  return node;
}

/** A name that may break after each of its underscores. */
export const breakable = (name) => name.split(/(?<=_)/).flatMap((part, n) => (n ? [el("wbr"), part] : [part]));

/** A button; `kind` is a class of style.css. */
export function button(kind, t, press, options = {}) {
  return el("button", { type: "button", className: kind, t, on: { click: press }, ...options });
}
