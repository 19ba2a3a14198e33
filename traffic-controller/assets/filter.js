// Which rows show. Pure.
//
// What enters: what was typed, and which levels and types are on. What leaves: a test of rows, and where the text of one matches.
// Text matches anywhere, whatever its case; `/expression/` is a regular expression; a `!` before either turns it round.

import { LEVELS } from "./level.js";

/** The types a row may be of, as they are switched. */
export const TYPES = ["out", "err", "event", "metric"];

/** The types that show unless somebody says otherwise. */
export const USUAL_TYPES = ["out", "err", "event"];

/** All levels, `""` for lines that tell none. */
export const ALL_LEVELS = [...LEVELS, ""];

const MOST_MATCHES = 50;

/** A filter; `error` says why an expression cannot be one, and everything shows then. */
export function compile({ query = "", levels = ALL_LEVELS, types = USUAL_TYPES } = {}) {
  const negated = query.startsWith("!") && query.length > 1;
  const wanted = negated ? query.slice(1) : query;
  let expression = null;
  let error = "";
  const typed = /^\/(.+)\/([imsu]*)$/.exec(wanted);
  if (typed) {
    try {
      expression = new RegExp(typed[1], `g${[...new Set(typed[2])].join("")}`);
    } catch (found) {
      error = String(found.message).replace(/^Invalid regular expression: /, "");
    }
  } else if (wanted.trim() !== "") {
    expression = new RegExp(wanted.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"), "gi");
  }
  const anyLevel = ALL_LEVELS.every((level) => levels.includes(level));
  const [levelSet, typeSet] = [new Set(levels), new Set(types)];
  const everything = !expression && anyLevel && TYPES.every((type) => typeSet.has(type));
  return {
    error,
    everything,
    test: (line) => everything || test(line),
    ranges: (text) => (expression && !negated ? ranges(expression, text) : []),
  };

  function test(line) {
    if (line.kind === "gap" || line.kind === "mark") return true;
    if (!typeSet.has(typeOf(line))) return false;
    if (!anyLevel && line.kind === "log" && !levelSet.has(line.level)) return false;
    if (!expression) return true;
    expression.lastIndex = 0;
    return expression.test(line.plain) !== negated;
  }
}

/** Which of TYPES a row is. */
export function typeOf(line) {
  if (line.kind === "log") return line.err ? "err" : "out";
  return line.kind === "event" ? "event" : "metric";
}

function ranges(expression, text) {
  const found = [];
  expression.lastIndex = 0;
  for (let match = expression.exec(text); match && found.length < MOST_MATCHES; match = expression.exec(text)) {
    if (match[0] === "") expression.lastIndex += 1;
    else found.push([match.index, match.index + match[0].length]);
  }
  return found;
}
