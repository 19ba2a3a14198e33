// Values of metrics over time, ready to be drawn. Pure.
//
// What enters: counters, gauges and timers in their JSON form. What leaves: per name a few series, one per instance, in steps of equal
// length: the last value of a gauge, the rate of a counter, the median, the 95th percentile and the rate of a timer. *Invariant*: bounded
// in names, in series of a name, in steps, and in durations kept of a step; what goes beyond is not taken in, and `left` counts it.

/** Steps of a chart. */
export const STEPS = 150;

const MOST_NAMES = 400;
const MOST_SERIES = 12;
const MOST_DURATIONS = 400;

export class Series {
  /** Charts `seconds` back from now. */
  constructor(seconds) {
    this.seconds = seconds;
    this.step = (seconds * 1000) / STEPS;
    this.metrics = new Map();
    this.left = 0;
  }

  /** Takes an envelope in. */
  add(envelope) {
    const ms = Math.floor(Number(envelope.timestamp) / 1e6);
    const at = Math.floor(ms / this.step);
    if (envelope.gauge) {
      for (const [name, { unit, value }] of Object.entries(envelope.gauge.metrics ?? {}))
        this.gauge(name, unit, Number(value), envelope, at, ms);
    } else if (envelope.counter) {
      const { name, delta, total } = envelope.counter;
      this.put(name, "counter", "", envelope, at, (slot, series) => grow(slot, series, Number(delta), Number(total)));
    } else if (envelope.timer) {
      const { name, start, stop } = envelope.timer;
      this.put(name, "timer", "ns", envelope, at, (slot) => sample(slot, Number(BigInt(stop) - BigInt(start))));
    }
  }

  // What comes by statsd is always a gauge, and its unit tells what it was: a running total, a duration, or a gauge.
  gauge(name, unit, value, envelope, at, ms) {
    if (unit === "counter") this.put(name, "counter", "", envelope, at, (slot, series) => grow(slot, series, 0, value));
    else if (unit === "ms") this.put(name, "timer", "ns", envelope, at, (slot) => sample(slot, value * 1e6));
    else {
      this.put(name, "gauge", unit === "gauge" ? "" : unit, envelope, at, (slot) => {
        if (!(ms < slot.ms)) Object.assign(slot, { ms, value });
      });
    }
  }

  /** The names that have values, in order. */
  names() {
    return [...this.metrics.keys()].sort();
  }

  /**
   * What to draw of a name up to `now` (milliseconds): `{ kind, unit, from, to, lines: [{ label, points: [[ms, value]] }] }`.
   */
  chart(name, now) {
    const metric = this.metrics.get(name);
    if (!metric) return null;
    const to = Math.floor(now / this.step);
    const from = to - STEPS;
    const lines = [];
    for (const [label, series] of metric.series) {
      for (const at of series.slots.keys()) if (at <= from) series.slots.delete(at);
      if (series.slots.size === 0) continue;
      const points = (read, end = to + 2) => {
        const found = [];
        for (const at of [...series.slots.keys()].sort((a, b) => a - b)) {
          const value = read(series.slots.get(at));
          if (value !== null && at < end) found.push([(at + 0.5) * this.step, value]);
        }
        return found;
      };
      if (metric.kind === "gauge") {
        lines.push({ label, points: points((slot) => (Number.isFinite(slot.value) ? slot.value : null)) });
      } else if (metric.kind === "counter") {
        lines.push({ label, points: this.filled(series, from, to, (slot) => (slot.sum ?? 0) / (this.step / 1000)) });
      } else {
        lines.push({ label: `p95 ${label}`.trim(), points: points((slot) => percentile(slot.durations, 0.95), to) });
        lines.push({ label: `p50 ${label}`.trim(), points: points((slot) => percentile(slot.durations, 0.5), to) });
      }
    }
    const rate = metric.kind === "timer" ? this.rate(metric, to) : null;
    const unit = metric.kind === "counter" ? "per s" : metric.unit;
    return { kind: metric.kind, unit, from: from * this.step, to: to * this.step, lines, rate };
  }

  // A counter that says nothing grows by nothing: its line goes on at zero from its first value. The step that runs is left out.
  filled(series, from, to, read) {
    const first = Math.max(from + 1, Math.min(...series.slots.keys()));
    const found = [];
    for (let at = first; at < to; at += 1) found.push([(at + 0.5) * this.step, read(series.slots.get(at) ?? {})]);
    return this.smoothed(found, series);
  }

  // Counters told every few seconds would jump between zero and a peak: what one tells belongs to the time since the last.
  smoothed(points, series) {
    const told = [...series.slots.keys()].sort((a, b) => a - b);
    const gaps = told
      .slice(1)
      .map((at, place) => at - told[place])
      .sort((a, b) => a - b);
    const width = Math.min(30, Math.max(1, gaps[Math.floor(gaps.length / 2)] ?? 1));
    if (width === 1) return points;
    let sum = 0;
    return points.map(([ms, value], place) => {
      sum += value - (place >= width ? points[place - width][1] : 0);
      return [ms, Math.max(0, sum) / Math.min(width, place + 1)];
    });
  }

  rate(metric, to) {
    let count = 0;
    for (const { slots } of metric.series.values())
      for (let at = to - 10; at < to; at += 1) count += slots.get(at)?.count ?? 0;
    return count / ((10 * this.step) / 1000);
  }

  put(name, kind, unit, envelope, at, change) {
    let metric = this.metrics.get(name);
    if (!metric) {
      if (this.metrics.size >= MOST_NAMES) return void (this.left += 1);
      metric = { kind, unit, series: new Map() };
      this.metrics.set(name, metric);
    }
    if (metric.kind !== kind) return void (this.left += 1);
    const label = labelOf(envelope);
    let series = metric.series.get(label);
    if (!series) {
      if (metric.series.size >= MOST_SERIES) return void (this.left += 1);
      series = { slots: new Map() };
      metric.series.set(label, series);
    }
    let slot = series.slots.get(at);
    if (!slot) {
      slot = {};
      series.slots.set(at, slot);
      if (series.slots.size > STEPS + 10) series.slots.delete(Math.min(...series.slots.keys()));
    }
    change(slot, series);
  }
}

function grow(slot, series, delta, total) {
  const grown = delta || (series.total === undefined ? 0 : Math.max(0, total - series.total));
  series.total = total;
  slot.sum = (slot.sum ?? 0) + grown;
}

// Beyond a number of durations in a step, each of them has the same chance to be kept.
function sample(slot, nanos) {
  slot.count = (slot.count ?? 0) + 1;
  slot.durations ??= [];
  if (slot.durations.length < MOST_DURATIONS) slot.durations.push(nanos);
  else {
    const at = Math.floor(Math.random() * slot.count);
    if (at < MOST_DURATIONS) slot.durations[at] = nanos;
  }
}

// Tags that every envelope of a source has tell nothing about a series.
const COMMON = new Set([
  "deployment",
  "job",
  "index",
  "ip",
  "origin",
  "source_id",
  "instance_id",
  "product",
  "system_domain",
  "zone",
  "__v1_type",
]);

function labelOf(envelope) {
  const parts = envelope.instance_id ? [envelope.instance_id] : [];
  for (const [name, value] of Object.entries(envelope.tags ?? {}))
    if (!COMMON.has(name)) parts.push(`${name}=${value}`);
  return parts.join(" ");
}

/** The value below which `share` of the values are; null of none. */
export function percentile(values, share) {
  if (!values || values.length === 0) return null;
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))];
}

/** Steps of an axis from `low` to `high`: about `wanted` round numbers. */
export function ticks(low, high, wanted) {
  if (!(high > low)) return [low];
  const raw = (high - low) / wanted;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((step) => step >= raw);
  const found = [];
  for (let at = Math.ceil(low / step); at * step <= high + step * 1e-9; at += 1) found.push(at * step);
  return found;
}
