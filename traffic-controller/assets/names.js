// Names that queries may use: metrics, labels and their values, asked of the server and kept for a while.
//
// What enters: what is typed, and the chosen sources. What leaves: lists. *Invariant*: bounded; who cannot be asked has nothing to offer.

import { named, series } from "./api.js";

const FRESH = 30_000;
const MOST_KEPT = 40;
const PATIENCE = 5000;

export class Names {
  constructor() {
    this.kept = new Map();
  }

  /** The names for a place in a query, as `context` of `promql.js` tells it. */
  async known({ kind, metric = "", label = "" }, sources) {
    const of = selector("", sources);
    if (kind === "word") return { metrics: await this.list("label/__name__/values", of) };
    const found = metric ? await this.labels(selector(metric, sources)) : null;
    if (kind === "label") return { labels: found ? [...found.keys()].sort() : await this.list("labels", of) };
    if (label === "source_id" || !found)
      return { values: await this.list(`label/${encodeURIComponent(label)}/values`, label === "source_id" ? "" : of) };
    return { values: [...(found.get(label) ?? [])].sort() };
  }

  list(path, match) {
    return this.keep(`${path} ${match}`, [], () => named(path, match, AbortSignal.timeout(PATIENCE)));
  }

  // The labels of the series of a metric, with their values.
  labels(match) {
    return this.keep(`series ${match}`, new Map(), async () => {
      const found = new Map();
      for (const labels of await series(match, AbortSignal.timeout(PATIENCE)))
        for (const [name, value] of Object.entries(labels)) {
          if (name === "__name__") continue;
          if (!found.has(name)) found.set(name, new Set());
          found.get(name).add(value);
        }
      return found;
    });
  }

  async keep(key, nothing, ask) {
    const kept = this.kept.get(key);
    if (kept && performance.now() - kept.at < FRESH) return kept.found;
    try {
      const found = await ask();
      this.kept.delete(key);
      this.kept.set(key, { found, at: performance.now() });
      if (this.kept.size > MOST_KEPT) this.kept.delete(this.kept.keys().next().value);
      return found;
    } catch {
      return nothing;
    }
  }
}

/** A selector of the series of a metric, and of some sources; empty for all. */
export function selector(metric, sources) {
  if (sources.length === 0) return metric;
  const all = JSON.stringify(sources.join("|"));
  return `${metric}{source_id${sources.length === 1 ? `=${JSON.stringify(sources[0])}` : `=~${all}`}}`;
}
