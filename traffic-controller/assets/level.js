// How severe a line says it is. Pure.
//
// Looks for a level in JSON, in logfmt and before the text, in this order, and within the first characters only: a line costs the same
// however long it is.

/** The levels that a line may have; a line that tells none has `""`. */
export const LEVELS = ["error", "warn", "info", "debug"];

const LOOKED_AT = 600;
const BEFORE_TEXT = 80;

const NAMES = new Map([
  ...names("error", "err error fatal critical crit panic emerg emergency alert severe failure"),
  ...names("warn", "warn warning"),
  ...names("info", "info information informational notice"),
  ...names("debug", "debug trace verbose fine finer finest"),
]);

const IN_JSON = /"(?:level|severity|lvl|loglevel|log_level|log\.level|levelname)"\s*:\s*(?:"([A-Za-z]+)"|(\d+))/i;
const IN_LOGFMT = /(?:^|\s)(?:level|lvl|severity)="?([A-Za-z]+)/;
const UPPER =
  /(?:^|[\s[(<|:=])(EMERG(?:ENCY)?|ALERT|PANIC|FATAL|CRIT(?:ICAL)?|SEVERE|ERR(?:OR)?|WARN(?:ING)?|NOTICE|INFO|DEBUG|TRACE|FINER?|VERBOSE)(?=[\s\])>|:,]|$)/;
const LOWER = /^\W*(?:\S+ )?\[?(fatal|panic|error|warning|warn|info|debug|trace)[\]:]/i;
const GLOG = /^([IWEF])\d{4} \d\d:/;
const GLOG_LEVELS = { I: "info", W: "warn", E: "error", F: "error" };

/** The level of a line's plain text. */
export function levelOf(text) {
  const start = text.length > LOOKED_AT ? text.slice(0, LOOKED_AT) : text;
  if (start.startsWith("{")) {
    const found = IN_JSON.exec(start);
    return found ? (found[1] ? named(found[1]) : numbered(Number(found[2]))) : "";
  }
  const logfmt = IN_LOGFMT.exec(start);
  if (logfmt) return named(logfmt[1]);
  const before = start.slice(0, BEFORE_TEXT);
  const upper = UPPER.exec(before);
  if (upper) return named(upper[1]);
  const lower = LOWER.exec(before);
  if (lower) return named(lower[1]);
  return GLOG_LEVELS[GLOG.exec(before)?.[1]] ?? "";
}

function names(level, list) {
  return list.split(" ").map((name) => [name, level]);
}

function named(name) {
  return NAMES.get(name.toLowerCase()) ?? "";
}

// Bunyan and pino count from 10 in tens, syslog from 7 downwards.
function numbered(level) {
  if (level < 8) return level <= 3 ? "error" : level === 4 ? "warn" : level === 7 ? "debug" : "info";
  return level >= 50 ? "error" : level >= 40 ? "warn" : level >= 30 ? "info" : "debug";
}
