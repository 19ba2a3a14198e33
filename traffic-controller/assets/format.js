// Numbers, sizes and times as people read them. Pure.
//
// Times of envelopes are decimal strings of nanoseconds: a Number cannot hold them exactly, so only their milliseconds become one.

const GROUPED = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
const PREFIXES = ["", "k", "M", "G", "T"];

/** 1234567 as `1,234,567`. */
export function count(value) {
  return GROUPED.format(value);
}

/** A number in at most five characters: `0`, `0.3`, `12`, `1.2k`, `340k`. */
export function short(value) {
  const size = Math.abs(value);
  if (size === 0) return "0";
  if (size < 0.05) return "<0.1";
  if (size < 9.95) return trimmed(value.toFixed(1));
  if (size < 999.5) return String(Math.round(value));
  let power = 0;
  let scaled = value;
  while (Math.abs(scaled) >= 999.5 && power < PREFIXES.length - 1) {
    scaled /= 1000;
    power += 1;
  }
  return trimmed(Math.abs(scaled) < 9.95 ? scaled.toFixed(1) : scaled.toFixed(0)) + PREFIXES[power];
}

/** Bytes with their unit: `512 B`, `1.2 kB`. */
export function bytes(value) {
  const text = short(value);
  const prefix = /[kMGT]$/.exec(text)?.[0] ?? "";
  return `${prefix ? text.slice(0, -1) : text} ${prefix}B`;
}

/** A value of a metric: as many digits as tell something. */
export function value(number) {
  if (!Number.isFinite(number)) return String(number);
  const size = Math.abs(number);
  if (size >= 1e5 || (size > 0 && size < 1e-3))
    return size >= 1e15 || size < 1e-3 ? number.toExponential(2) : short(number);
  return trimmed(number.toFixed(size >= 100 ? 1 : 3));
}

/** A duration of nanoseconds: `840 ns`, `12.5 ms`, `2.1 s`. */
export function duration(nanos) {
  const units = [
    ["s", 1e9],
    ["ms", 1e6],
    ["µs", 1e3],
    ["ns", 1],
  ];
  const [unit, size] = units.find(([, size]) => Math.abs(nanos) >= size) ?? units[3];
  return `${value(nanos / size)} ${unit}`;
}

/** Milliseconds since the epoch of a decimal string of nanoseconds. */
export function millis(nanos) {
  return Math.floor(Number(nanos) / 1e6);
}

/** Nanoseconds of milliseconds, as a decimal string. */
export function nanos(millis) {
  return `${BigInt(Math.floor(millis)) * 1000000n}`;
}

/** The next or an earlier nanosecond: `step` may be negative. */
export function shifted(nanos, step) {
  return String(BigInt(nanos) + BigInt(step));
}

let second = NaN;
let secondText = "";

/** The local time of day with milliseconds: `14:03:07.042`. */
export function clock(ms) {
  const whole = Math.floor(ms / 1000);
  if (whole !== second) {
    const date = new Date(whole * 1000);
    secondText = Number.isNaN(date.getTime())
      ? "??:??:??"
      : [date.getHours(), date.getMinutes(), date.getSeconds()].map(two).join(":");
    second = whole;
  }
  return `${secondText}.${String(ms - whole * 1000).padStart(3, "0")}`;
}

/** The local day: `2026-11-30`. */
export function day(ms) {
  const date = new Date(ms);
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
}

/** All of a time, to the nanosecond, in UTC: `2026-11-30T13:03:07.042137009Z`. */
export function full(nanos) {
  const whole = BigInt(nanos);
  const seconds = whole / 1000000000n - (whole % 1000000000n < 0n ? 1n : 0n);
  const rest = whole - seconds * 1000000000n;
  const date = new Date(Number(seconds) * 1000);
  if (Number.isNaN(date.getTime())) return nanos;
  return `${date.toISOString().slice(0, 19)}.${String(rest).padStart(9, "0")}Z`;
}

function two(number) {
  return String(number).padStart(2, "0");
}

function trimmed(digits) {
  return digits.includes(".") ? digits.replace(/\.?0+$/, "") : digits;
}
