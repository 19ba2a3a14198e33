// Answers to queries, ready to be drawn and listed. Pure.
//
// What enters: the data of the server. What leaves: lines with short names, and rows of values of now. *Invariant*: bounded in lines, in
// their points, and in rows; what goes beyond is counted.

import { value as shown } from "./format.js";

const MOST_LINES = 20;
const MOST_POINTS = 500;
const MOST_ROWS = 100;
const LONGEST = 200;

/** A number as the server writes it. */
export function number(text) {
  if (text === "+Inf") return Infinity;
  return text === "-Inf" ? -Infinity : Number(text);
}

/** Labels as PromQL writes them, with a name that tells which series they are of. */
export function key(metric) {
  const pairs = Object.entries(metric).sort(([a], [b]) => (a < b ? -1 : 1));
  return `{${pairs.map(([name, value]) => `${name}=${JSON.stringify(value)}`).join(", ")}}`;
}

/** The names of labels in which series differ; of one series alone all. */
export function telling(metrics) {
  const values = new Map();
  for (const metric of metrics)
    for (const name of Object.keys(metric)) {
      if (!values.has(name)) values.set(name, new Set());
      values.get(name).add(metric[name]);
    }
  const differs = ([name, found]) =>
    metrics.length < 2 || found.size > 1 || !metrics.every((metric) => Object.hasOwn(metric, name));
  return [...values].filter(differs).map(([name]) => name);
}

function label(metric, names) {
  const parts = names.filter((name) => Object.hasOwn(metric, name)).map((name) => `${name}=${metric[name]}`);
  return parts.join(" ").slice(0, LONGEST);
}

/**
 * What to draw of a range: `{ kind, unit, from, to, step, lines: [{ label, key, points: [[ms, value]] }] }`, times in milliseconds, and how
 * many series are left out as `left`.
 */
export function chart(result, { start, end, step }) {
  const drawn = result.slice(0, MOST_LINES);
  const names = telling(drawn.map(({ metric }) => metric));
  const lines = drawn.map(({ metric, values }) => ({
    label: label(metric, names),
    key: key(metric),
    points: values
      .slice(0, MOST_POINTS)
      .map(([seconds, text]) => [seconds * 1000, number(text)])
      .filter(([, value]) => Number.isFinite(value)),
  }));
  return {
    data: { kind: "query", unit: "", from: start * 1000, to: end * 1000, step: step * 1000, lines },
    left: result.length - drawn.length,
  };
}

/** The values of now, as rows: `{ rows: [{ name, key, text }], left }`. A number alone has no name. */
export function rows({ resultType, result }) {
  if (resultType === "scalar" || resultType === "string")
    return { rows: [{ name: "", key: "{}", text: told(resultType, result[1]) }], left: 0 };
  const listed = result.slice(0, MOST_ROWS);
  const names = telling(listed.map(({ metric }) => metric));
  const row = ({ metric, value, values }) => ({
    name: label(metric, names),
    key: key(metric),
    text: told("vector", (value ?? values.at(-1))[1]),
  });
  return { rows: listed.map(row), left: result.length - listed.length };
}

function told(type, text) {
  return type === "string" ? text.slice(0, LONGEST) : shown(number(text));
}

/** The times of a range up to `now`, in whole steps, so that its points stay the same from one answer to the next. In seconds. */
export function range(now, seconds, steps) {
  const step = Math.max(1, Math.round(seconds / steps));
  const end = Math.floor(now / step) * step;
  return { start: end - Math.floor(seconds / step) * step, end, step };
}

/** What has been asked before: the newest last, each once, so many at most. */
export function remembered(past, query, most = 50) {
  return [...past.filter((other) => other !== query), query].slice(-most);
}
