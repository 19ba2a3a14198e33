// One row of the log: an envelope, a gap, or a mark. Pure.
//
// What enters: an envelope in its JSON form. What leaves: a row that decodes its text, its level and its fields when they are first asked
// for: of ten thousand lines a second few are looked at.

import { plain } from "./ansi.js";
import { duration, millis, value } from "./format.js";
import { levelOf } from "./level.js";

const UTF8 = new TextDecoder("utf-8");
const LONGEST_JSON = 64 * 1024;
const MESSAGE_KEYS = ["msg", "message", "log", "text", "event"];
const HIDDEN_KEYS = new Set([
  "level",
  "severity",
  "lvl",
  "levelname",
  "time",
  "timestamp",
  "ts",
  "@timestamp",
  "date",
  "v",
]);

/** What a row is. */
export const KINDS = ["log", "event", "counter", "gauge", "timer", "gap", "mark"];

export class Line {
  constructor(kind, nanos) {
    this.kind = kind;
    this.nanos = nanos;
    this.source = "";
    this.instance = "";
    this.err = false;
    this.tags = null;
    this.lost = 0;
    this.seq = 0;
    this.body = null; // what the text is made of, until it is asked for
    this.said = null;
    this.stripped = null;
    this.severity = null;
    this.object = undefined;
  }

  /** Milliseconds since the epoch. */
  get ms() {
    return millis(this.nanos);
  }

  /** The text as it was sent, without a line feed at its end. */
  get text() {
    if (this.said === null) {
      this.said = this.kind === "log" ? decoded(this.body) : textOf(this.kind, this.body);
      if (this.kind === "log") this.body = null;
    }
    return this.said;
  }

  /** The text without escape sequences. */
  get plain() {
    this.stripped ??= plain(this.text);
    return this.stripped;
  }

  /** One of LEVELS, or `""`. */
  get level() {
    this.severity ??= this.kind === "log" ? levelOf(this.plain) : "";
    return this.severity;
  }

  /** The object that the text is, if it is JSON; else null. */
  get json() {
    if (this.object === undefined) this.object = this.kind === "log" ? parsed(this.plain) : null;
    return this.object;
  }

  /** Whether two rows are the same envelope, as far as one can see. */
  get key() {
    return `${this.nanos} ${this.source} ${this.instance} ${this.kind} ${this.text}`;
  }
}

/** The row of an envelope; null for one without a message. */
export function fromEnvelope(envelope) {
  const kind = envelope.log ? "log" : KINDS.find((kind) => envelope[kind] !== undefined);
  if (!kind) return null;
  const line = new Line(kind, envelope.timestamp ?? "0");
  line.source = envelope.source_id ?? "";
  line.instance = envelope.instance_id ?? "";
  line.tags = envelope;
  if (kind === "log") {
    line.err = envelope.log.type === "ERR";
    line.body = envelope.log.payload;
    envelope.log = null; // the row has it now
  } else {
    line.body = envelope[kind];
    if (kind === "event" && line.body.title === "hydrant.gap") {
      line.kind = "gap";
      line.said = line.body.body;
      line.lost = Number(tagsOf(line).envelopes ?? 0);
    }
  }
  return line;
}

/** The row that says what is missing. */
export function fromGap(gap) {
  const line = new Line(
    "gap",
    gap.last_timestamp && gap.last_timestamp !== "0" ? gap.last_timestamp : (gap.first_timestamp ?? "0"),
  );
  line.source = gap.source_id ?? "";
  line.lost = Number(gap.envelopes ?? 0);
  const plural = line.lost === 1 ? "line" : "lines";
  const whose = line.source ? ` of ${line.source}` : "";
  const why = gap.reason
    ? `lost here: ${gap.reason}${gap.stage ? ` at the ${gap.stage.replaceAll("_", " ")}` : ""}`
    : "no longer in the cache";
  line.said = `${line.lost.toLocaleString("en-US")} ${plural}${whose} ${why}`;
  return line;
}

/** A row that the page writes itself. */
export function mark(text, nanos) {
  const line = new Line("mark", nanos);
  line.said = text;
  return line;
}

/** The tags of a row's envelope, both kinds, by name. */
export function tagsOf(line) {
  const tags = {};
  for (const [name, { text, integer, decimal } = {}] of Object.entries(line.tags?.deprecated_tags ?? {})) {
    tags[name] = String(text ?? integer ?? decimal ?? "");
  }
  return Object.assign(tags, line.tags?.tags);
}

/** `{ message, fields }` of a line in JSON: its text, and the rest as `[name, value]` without what the row shows elsewhere. */
export function summary(object) {
  const name = MESSAGE_KEYS.find((name) => typeof object[name] === "string");
  const fields = [];
  for (const [key, value] of Object.entries(object)) {
    if (key === name || HIDDEN_KEYS.has(key)) continue;
    fields.push([key, typeof value === "string" ? value : JSON.stringify(value)]);
  }
  return { message: name ? object[name] : "", fields };
}

function parsed(text) {
  if (!text.startsWith("{") || text.length > LONGEST_JSON || !text.trimEnd().endsWith("}")) return null;
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

function decoded(payload) {
  if (!payload) return "";
  const binary = atob(payload);
  let text = binary;
  if (/[\x80-\xff]/.test(binary)) {
    const bytes = new Uint8Array(binary.length);
    for (let at = 0; at < binary.length; at += 1) bytes[at] = binary.charCodeAt(at);
    text = UTF8.decode(bytes);
  }
  return text.replace(/\r?\n$/, "");
}

function textOf(kind, body) {
  switch (kind) {
    case "event":
      return body.body ? `${body.title}: ${body.body}` : body.title;
    case "counter":
      return `${body.name} +${body.delta} = ${body.total}`;
    case "gauge":
      return Object.entries(body.metrics ?? {})
        .map(([name, gauge]) => `${name}=${value(Number(gauge.value))}${gauge.unit ? ` ${gauge.unit}` : ""}`)
        .join("  ");
    case "timer":
      return `${body.name} ${duration(Number(BigInt(body.stop) - BigInt(body.start)))}`;
    default:
      return "";
  }
}
