// Terminal output as text and styles. Pure.
//
// What enters: the text of a line. What leaves: the text that shows, and runs of it with the SGR styles that were in force
// (ECMA-48 §8.3.117). Every other escape sequence is taken out; control characters, and those that turn the direction of text, become
// visible signs: somebody else's line never moves anything on this page.

// A control sequence, a string such as a title, or another escape.
const ESCAPE =
  /(?:\x1b\[|\x9b)([0-?]*)[ -/]*([@-~])?|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?|\x1b[ -/]*[0-~]?/g;
const SPECIAL = /[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]/;
const SIGNS = /[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]/g;
const LEVELS = [0, 95, 135, 175, 215, 255];

/** Whether a text needs {@link parse} at all. */
export function isSpecial(text) {
  return SPECIAL.test(text);
}

/** The text without escape sequences: what filters look at. */
export function plain(text) {
  return text.includes("\x1b") || /[\x80-\x9f]/.test(text) ? text.replace(ESCAPE, "") : text;
}

/**
 * Runs `{ text, style }` in their order; `style` is null, or `{ classes, color, background }` where classes are names of style.css and
 * the colours are `rgb(…)` or null. At most `limit` runs: what is left then goes without style.
 */
export function parse(text, limit = 500) {
  if (!SPECIAL.test(text)) return text === "" ? [] : [{ text, style: null }];
  const runs = [];
  const state = blank();
  let style = null;
  let from = 0;
  const push = (part) => {
    if (part === "") return;
    const shown = part.replace(SIGNS, sign);
    const last = runs[runs.length - 1];
    if (last && (last.style === style || runs.length >= limit)) last.text += shown;
    else runs.push({ text: shown, style });
  };
  ESCAPE.lastIndex = 0;
  for (let found = ESCAPE.exec(text); found; found = ESCAPE.exec(text)) {
    push(text.slice(from, found.index));
    from = ESCAPE.lastIndex;
    if (found[2] === "m" && /^[\d;:]*$/.test(found[1])) {
      apply(state, found[1]);
      style = styleOf(state);
    }
  }
  push(text.slice(from));
  return runs;
}

function blank() {
  return {
    fg: null,
    bg: null,
    bold: false,
    dim: false,
    italic: false,
    underline: false,
    strike: false,
    inverse: false,
    hidden: false,
  };
}

function apply(state, parameters) {
  // Colons separate the parts of one parameter; nearly all programs write semicolons there too.
  const codes = parameters.split(/[;:]/).map((code) => Number(code || 0));
  for (let at = 0; at < codes.length; at += 1) {
    const code = codes[at];
    if (code === 0) Object.assign(state, blank());
    else if (code === 1) state.bold = true;
    else if (code === 2) state.dim = true;
    else if (code === 3) state.italic = true;
    else if (code === 4) state.underline = true;
    else if (code === 7) state.inverse = true;
    else if (code === 8) state.hidden = true;
    else if (code === 9) state.strike = true;
    else if (code === 21 || code === 22) state.bold = state.dim = false;
    else if (code === 23) state.italic = false;
    else if (code === 24) state.underline = false;
    else if (code === 27) state.inverse = false;
    else if (code === 28) state.hidden = false;
    else if (code === 29) state.strike = false;
    else if (code >= 30 && code <= 37) state.fg = code - 30;
    else if (code >= 40 && code <= 47) state.bg = code - 40;
    else if (code >= 90 && code <= 97) state.fg = code - 82;
    else if (code >= 100 && code <= 107) state.bg = code - 92;
    else if (code === 39) state.fg = null;
    else if (code === 49) state.bg = null;
    else if (code === 38 || code === 48) {
      const [color, used] = extended(codes, at + 1);
      if (color !== undefined) state[code === 38 ? "fg" : "bg"] = color;
      at += used;
    }
  }
}

// The colour after 38 or 48, and how many codes told it.
function extended(codes, at) {
  if (codes[at] === 5) return [codes[at + 1] <= 255 ? palette(codes[at + 1]) : undefined, 2];
  if (codes[at] !== 2) return [undefined, 1];
  const rgb = codes.slice(at + 1, at + 4);
  const valid = rgb.length === 3 && rgb.every((part) => part <= 255);
  return [valid ? `rgb(${rgb.join(", ")})` : undefined, 4];
}

function palette(index) {
  if (index < 16) return index;
  if (index >= 232) {
    const grey = 8 + 10 * (index - 232);
    return `rgb(${grey}, ${grey}, ${grey})`;
  }
  const cube = index - 16;
  return `rgb(${LEVELS[Math.floor(cube / 36)]}, ${LEVELS[Math.floor(cube / 6) % 6]}, ${LEVELS[cube % 6]})`;
}

function styleOf(state) {
  const classes = [];
  for (const name of ["bold", "dim", "italic", "underline", "strike", "hidden"])
    if (state[name]) classes.push(`sgr-${name}`);
  let { fg, bg } = state;
  if (state.inverse) {
    [fg, bg] = [bg ?? "ground", fg ?? "ink"];
  }
  if (fg !== null && !isRgb(fg)) classes.push(`fg-${fg}`);
  if (bg !== null && !isRgb(bg)) classes.push(`bg-${bg}`);
  if (classes.length === 0 && fg === null && bg === null) return null;
  return { classes: classes.join(" "), color: isRgb(fg) ? fg : null, background: isRgb(bg) ? bg : null };
}

function isRgb(color) {
  return typeof color === "string" && color.startsWith("rgb");
}

function sign(character) {
  const code = character.charCodeAt(0);
  if (code === 10) return "⏎";
  if (code < 32) return String.fromCharCode(0x2400 + code);
  if (code === 127) return "␡";
  return `\\u${code.toString(16).padStart(4, "0")}`;
}
