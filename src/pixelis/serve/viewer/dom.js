// Everything on the page is made here, from text nodes and attributes: no string is ever parsed as HTML.

const SVG = "http://www.w3.org/2000/svg";

/** An element; `on*` properties are listeners, `class` and the rest attributes, children strings or nodes. */
function h(tag, properties = {}, ...children) {
  return fill(document.createElement(tag), properties, children);
}

/** The same for SVG. */
function s(tag, properties = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), properties, children);
}

function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children.flat()) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
  return element;
}

const HIDDEN = /([\u0000-\u0008\u000b-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff])/u;

/** A run's text as nodes: characters that hide or reorder their neighbours become marks that name them. */
function exact(text) {
  return String(text).split(HIDDEN).map((part, i) => (i % 2 ? h("span", { class: "mark" }, codeName(part)) : part));
}

const codeName = (character) => `U+${character.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`;
const legible = (text) => String(text).split(HIDDEN).map((part, i) => (i % 2 ? "\ufffd" : part)).join("");

/** Data that was written into the page; null when there is none of that name. */
function data(id) {
  const element = document.getElementById(id);
  return element ? JSON.parse(element.textContent) : null;
}

const ICONS = {
  logo: "M3 3h8v8H3zM13 13h8v8h-8zM13 3h8v8h-8z",
  menu: "M3 6h18v2H3zM3 11h18v2H3zM3 16h18v2H3z",
  theme: "M12 3a9 9 0 1 0 0 18zM12 3a9 9 0 0 1 0 18v-2a7 7 0 0 0 0-14z",
  play: "M7 4l13 8-13 8z",
  pause: "M6 4h4v16H6zM14 4h4v16h-4z",
  back: "M15 5l-8 7 8 7z",
  forth: "M9 5l8 7-8 7z",
};

function icon(name) {
  return s("svg", { viewBox: "0 0 24 24", "aria-hidden": "true" }, s("path", { d: ICONS[name], fill: "currentColor" }));
}

const number = (value, digits = 2) => (typeof value === "number" && Number.isFinite(value) ? value.toFixed(digits) : "–");
const seconds = (value) => `${number(value, value < 10 ? 2 : 1)} s`;
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
