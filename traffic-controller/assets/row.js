// One row of the log as elements.
//
// What enters: a row, and what matters to how it looks. What leaves: an element whose text nodes hold what the row says. Styles come as
// classes; the few colours that no class has are set through the object model.

import { parse } from "./ansi.js";
import { el } from "./dom.js";
import { clock, day, full } from "./format.js";
import { summary, tagsOf } from "./line.js";

const LONGEST = 2000; // of a row that is not open
const LONGEST_OPEN = 200_000;
const HUES = 10;

/** Puts a row into an element of the list. `look` is `{ filter, sources, today }`; `sources` says whether their names show. */
export function render(element, line, look) {
  element.className = `row kind-${line.kind}${line.err ? " stderr" : ""}${line.level ? ` level-${line.level}` : ""}`;
  const parts = [timeOf(line, look)];
  if (look.sources && line.kind !== "mark")
    parts.push(el("span", { class: `source-name ${hue(line.source)}`, title: line.source }, line.source));
  else parts.push(el("span", { hidden: true }));
  parts.push(
    line.instance
      ? el("span", { class: `instance ${hue(line.instance)}`, title: `instance ${line.instance}` }, line.instance)
      : el("span", { class: "instance" }),
  );
  parts.push(textOf(line, look));
  element.replaceChildren(...parts);
}

/** What a row that is open shows below it. `on` has `link`, `copy` and `around`. */
export function detail(line, on) {
  const facts = el("dl");
  const fact = (name, text) => facts.append(el("dt", {}, name), el("dd", {}, visible(text)));
  fact("time", `${full(line.nanos)}  (here ${day(line.ms)} ${clock(line.ms)})`);
  fact("source", line.source + (line.instance ? `, instance ${line.instance}` : ""));
  fact("type", line.kind === "log" ? (line.err ? "log, stderr" : "log, stdout") : line.kind);
  for (const [name, text] of Object.entries(tagsOf(line)).sort()) fact(visible(name), text);
  const pre = el("pre");
  if (line.json) pretty(pre, line.json, 0);
  else for (const part of line.text.slice(0, LONGEST_OPEN).split("\n")) pre.append(...runs(parse(part), []), "\n");
  const actions = el(
    "div",
    { class: "actions" },
    el("button", { class: "plain", type: "button", onclick: on.link }, "Link to this line"),
    el("button", { class: "plain", type: "button", onclick: on.copy }, "Copy text"),
    el("button", { class: "plain", type: "button", onclick: on.around }, "Show what is around it"),
  );
  return el("div", { class: "detail" }, pre, facts, actions);
}

const MOST_NAMES = 2000;
const hues = new Map();
const taken = new Array(HUES).fill(0);

/** The class of a name's colour: the same for the same name, and different ones for the first few names. */
export function hue(name) {
  let found = hues.get(name);
  if (found === undefined) {
    let hash = 0;
    for (let at = 0; at < name.length; at += 1) hash = (Math.imul(hash, 31) + name.charCodeAt(at)) | 0;
    found = (/^\d+$/.test(name) ? Number(name) : hash >>> 0) % HUES;
    // Numbers are instances: they stand in another column, and may share colours with names.
    if (!/^\d+$/.test(name)) {
      const least = Math.min(...taken);
      while (taken[found] > least) found = (found + 1) % HUES;
      taken[found] += 1;
    }
    if (hues.size < MOST_NAMES) hues.set(name, found);
  }
  return `hue-${found}`;
}

function timeOf(line, look) {
  const other = line.kind !== "mark" && day(line.ms) !== look.today;
  return el(
    "span",
    { class: "time", title: full(line.nanos) },
    other ? `${day(line.ms).slice(5)} ${clock(line.ms)}` : clock(line.ms),
  );
}

function textOf(line, look) {
  const element = el("span", { class: "text" });
  if (line.kind === "counter" || line.kind === "gauge" || line.kind === "timer" || line.kind === "event") {
    element.append(el("span", { class: "badge" }, line.kind));
  }
  if (line.json) {
    const { message, fields } = summary(line.json);
    if (message) element.append(...highlighted(visible(message), look.filter));
    for (const [name, value] of fields) {
      const field = el("span", { class: "field" }, message || element.childNodes.length > 0 ? "  " : "");
      field.append(el("b", {}, `${visible(name)}=`), ...highlighted(visible(value.slice(0, 300)), look.filter));
      element.append(field);
      if (element.childNodes.length > 60) break;
    }
    return element;
  }
  const text = line.text;
  const found = parse(text.length > LONGEST ? `${text.slice(0, LONGEST)} …` : text);
  const shown = found.length === 1 ? found[0].text : found.map((run) => run.text).join("");
  element.append(...runs(found, look.filter.ranges(shown)));
  return element;
}

function highlighted(text, filter) {
  return runs([{ text, style: null }], filter.ranges(text));
}

// Texts and spans of runs, with marks where `ranges` of their whole text say so.
function runs(found, ranges) {
  const nodes = [];
  let offset = 0;
  let next = 0;
  for (const { text, style } of found) {
    const parts = [];
    let at = 0;
    while (at < text.length) {
      while (next < ranges.length && ranges[next][1] <= offset + at) next += 1;
      const [from, to] = ranges[next] ?? [Infinity, Infinity];
      if (from <= offset + at) {
        const end = Math.min(text.length, to - offset);
        parts.push(el("mark", {}, text.slice(at, end)));
        at = end;
      } else {
        const end = Math.min(text.length, from - offset);
        parts.push(text.slice(at, end));
        at = end;
      }
    }
    offset += text.length;
    if (style === null) {
      nodes.push(...parts);
      continue;
    }
    const span = el("span", style.classes ? { class: style.classes } : {}, ...parts);
    if (style.color) span.style.setProperty("color", style.color);
    if (style.background) span.style.setProperty("background-color", style.background);
    nodes.push(span);
  }
  return nodes;
}

function visible(text) {
  const found = parse(text);
  return found.length === 1 ? found[0].text : found.map((run) => run.text).join("");
}

const DEEPEST = 12;
const MOST_CHILDREN = 500;

function pretty(into, value, depth) {
  if (value === null || typeof value !== "object") {
    const kind = typeof value === "string" ? "text" : typeof value === "number" ? "number" : "word";
    into.append(el("span", { class: `json-${kind}` }, visible(JSON.stringify(value))));
    return;
  }
  const list = Array.isArray(value);
  const entries = Object.entries(value);
  if (entries.length === 0 || depth >= DEEPEST)
    return void into.append(list ? (entries.length ? "[…]" : "[]") : entries.length ? "{…}" : "{}");
  into.append(list ? "[\n" : "{\n");
  for (const [place, [key, child]] of entries.entries()) {
    into.append("  ".repeat(depth + 1));
    if (place === MOST_CHILDREN) {
      into.append(`… ${entries.length - place} more\n`);
      break;
    }
    if (!list) into.append(el("span", { class: "json-key" }, visible(JSON.stringify(key))), ": ");
    pretty(into, child, depth + 1);
    into.append(place < entries.length - 1 ? ",\n" : "\n");
  }
  into.append("  ".repeat(depth), list ? "]" : "}");
}
