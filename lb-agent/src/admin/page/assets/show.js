// Elements, and numbers, times and states as words. Text only ever becomes text: nothing here parses markup.

const SVG = "http://www.w3.org/2000/svg";

/** An element with its attributes, listeners (`onclick`) and children; text children are shown as they are. */
export function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same for SVG. */
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value == null) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child != null));
  return node;
}

/** Changes a text only where it differs: what stays the same costs no layout. */
export function say(node, text) {
  const shown = text == null ? "" : String(text);
  const first = node.firstChild;
  if (first?.nodeType === Node.TEXT_NODE && first === node.lastChild) {
    if (first.data !== shown) first.data = shown;
  } else if (node.textContent !== shown) node.textContent = shown;
}

/** Changes an attribute only where it differs; `null` takes it away. */
export function mark(node, name, value) {
  if (value == null) {
    if (node.hasAttribute(name)) node.removeAttribute(name);
  } else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
}

const grouped = new Intl.NumberFormat("en", { useGrouping: true });
const THIN = "\u202f";

/** 1234567 as `1 234 567`; nothing for what is not known. */
export function count(value) {
  return value == null ? "" : grouped.format(value).replaceAll(",", THIN);
}

/** 1234567 as `1.2M`. */
export function brief(value) {
  if (value == null) return "";
  return value < 10000 ? count(Math.round(value)) : scaled(value, 1000, ["", "k", "M", "G", "T", "P"]);
}

/** Bytes, with the units that are powers of 1024. */
export function bytes(value) {
  if (value == null) return "";
  return value < 1024 ? `${Math.round(value)} B` : scaled(value, 1024, ["", "Ki", "Mi", "Gi", "Ti", "Pi"], "B");
}

function scaled(value, base, units, suffix = "") {
  let at = 0;
  while (value >= base && at < units.length - 1) {
    value /= base;
    at += 1;
  }
  const digits = value < 10 ? 2 : value < 100 ? 1 : 0;
  return `${value.toFixed(digits)}${suffix ? " " : ""}${units[at]}${suffix}`;
}

/** Milliseconds of a handshake. */
export function millis(value) {
  if (value == null) return "–";
  if (value < 10) return `${value.toFixed(value < 1 ? 2 : 1)} ms`;
  return value < 10000 ? `${Math.round(value)} ms` : `${(value / 1000).toFixed(1)} s`;
}

/** Seconds in HAProxy's way: `32s`, `5m3s`, `2h7m`, `3d4h`. */
export function ago(seconds) {
  if (seconds == null) return "";
  const s = Math.max(0, Math.floor(seconds));
  if (s < 60) return `${s}s`;
  if (s < 3600) return `${Math.floor(s / 60)}m${s % 60}s`;
  if (s < 86400) return `${Math.floor(s / 3600)}h${Math.floor((s % 3600) / 60)}m`;
  return `${Math.floor(s / 86400)}d${Math.floor((s % 86400) / 3600)}h`;
}

/** `0d 0h00m16s`. */
export function uptime(seconds) {
  const s = Math.max(0, Math.floor(seconds));
  const two = (number) => String(number).padStart(2, "0");
  return `${Math.floor(s / 86400)}d ${Math.floor((s % 86400) / 3600)}h${two(Math.floor((s % 3600) / 60))}m${two(s % 60)}s`;
}

/** A moment by the reader's clock. */
export function clock(moment) {
  return el(
    "time",
    { datetime: new Date(moment).toISOString() },
    new Date(moment).toLocaleString([], { dateStyle: "short", timeStyle: "medium" }),
  );
}

const LOOKS = { UP: "up", OPEN: "up", ACTIVE: "up", DOWN: "down", STOP: "down", MAINT: "maint", MAINTENANCE: "maint", DRAIN: "drain", DRAINING: "drain" };

/** What a status looks like, in HAProxy's words or the agent's own; they are always shown, too. */
export function look(status) {
  const [word, fraction] = status.toUpperCase().split(" ");
  return word === "UP" && fraction ? "wait" : (LOOKS[word] ?? "wait");
}
