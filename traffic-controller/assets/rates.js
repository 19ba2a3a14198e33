// Rates of what the pipeline counts, from one look at it to the next. Pure.
//
// What enters: overviews, about one a second, and losses. What leaves: per source its rates, its loss and its last minute; per stage,
// consumer and drain its rates. A counter that went down has started again: what it shows now came since then.

/** Looks that a sparkline shows. */
export const HISTORY = 60;

const SMOOTHING = 0.45;

/** How often rows may change places, milliseconds. */
const RESORTED = 4000;

export class Rates {
  constructor() {
    this.time = null;
    this.sources = new Map();
    this.flows = new Map();
    this.order = [];
    this.sorted = -Infinity;
    this.rated = false;
  }

  /** Takes an overview in; `now` is milliseconds of a clock of the page's own. */
  update(overview, now) {
    const time = Number(BigInt(overview.time) / 1000n) / 1e6;
    const seconds = this.time === null ? 0 : time - this.time;
    if (this.time !== null && seconds <= 0) return;
    this.time = time;
    this.rated = seconds > 0;
    const seen = new Set();
    for (const told of overview.sources) {
      seen.add(told.source_id);
      this.source(told, seconds);
    }
    for (const [id, source] of this.sources) {
      if (!seen.has(id) && source.lost === 0) this.sources.delete(id);
      else if (!seen.has(id)) step(source, source.envelopes, source.bytes, seconds);
    }
    this.flow(overview, seconds);
    // Before the second look there are no rates: the order is that of all they have sent.
    if (seconds === 0) this.order = overview.sources.map((told) => told.source_id);
  }

  /** Adds what a source has lost. */
  lose(id, envelopes) {
    const source = this.sources.get(id) ?? this.add(id, 0, 0);
    source.lost += envelopes;
  }

  /**
   * Puts the noisiest of the last minute first, unless that was done a moment ago or `held` says that somebody points at them; new ones go
   * to the end.
   */
  sort(now, held) {
    const known = new Set(this.order);
    if (now - this.sorted < RESORTED || held || !this.rated) {
      this.order = this.order.filter((id) => this.sources.has(id));
      for (const id of this.sources.keys()) if (!known.has(id)) this.order.push(id);
      return;
    }
    this.sorted = now;
    const weight = (id) => {
      const { history } = this.sources.get(id);
      const rate = history.reduce((sum, now) => sum + now, 0) / Math.max(1, history.length);
      return rate < 0.05 ? 0 : Math.round(Math.log2(rate) * 2) + 100; // what is about as loud stays where it is
    };
    const places = new Map(this.order.map((id, place) => [id, place]));
    const place = (id) => places.get(id) ?? Infinity;
    const weights = new Map([...this.sources.keys()].map((id) => [id, weight(id)]));
    this.order = [...this.sources.keys()].sort(
      (a, b) => weights.get(b) - weights.get(a) || place(a) - place(b) || (a < b ? -1 : 1),
    );
  }

  /** The rate of a counter of the pipeline by its key, per second; null before the second look. */
  per(key) {
    return this.flows.get(key)?.rate ?? null;
  }

  source(told, seconds) {
    const [envelopes, bytes] = [Number(told.envelopes), Number(told.bytes)];
    const source = this.sources.get(told.source_id);
    if (source) {
      step(source, envelopes, bytes, seconds);
    } else {
      const added = this.add(told.source_id, envelopes, bytes);
      // One that was not there before has sent all of it since.
      if (seconds > 0) step(added, 2 * envelopes, 2 * bytes, seconds);
      [added.envelopes, added.bytes] = [envelopes, bytes];
    }
    const known = this.sources.get(told.source_id);
    known.held = Number(told.held);
    known.oldest = told.oldest_timestamp;
    known.newest = told.newest_timestamp;
  }

  add(id, envelopes, bytes) {
    const source = {
      id,
      envelopes,
      bytes,
      held: 0,
      oldest: "0",
      newest: "0",
      rate: 0,
      byteRate: 0,
      lost: 0,
      history: [],
    };
    this.sources.set(id, source);
    return source;
  }

  flow(overview, seconds) {
    const seen = new Set();
    const tell = (key, total) => {
      seen.add(key);
      const known = this.flows.get(key);
      if (!known) this.flows.set(key, { total, rate: null });
      else if (seconds > 0) {
        const now = grown(known.total, total) / seconds;
        known.rate = known.rate === null ? now : smooth(known.rate, now);
        known.total = total;
      }
    };
    for (const stage of overview.stages) {
      for (const name of ["received", "delivered"])
        tell(`${name} ${stage.stage} ${stage.address}`, Number(stage[name]));
      tell(`dropped ${stage.stage} ${stage.address}`, summed(stage.dropped));
    }
    for (const consumer of overview.consumers) {
      tell(`taken ${keyOf(consumer)}`, Number(consumer.taken));
      tell(`lost ${keyOf(consumer)}`, Number(consumer.dropped));
    }
    for (const drain of overview.drains) {
      tell(`drained ${drain.address} ${drain.name}`, Number(drain.delivered));
      tell(`undrained ${drain.address} ${drain.name}`, summed(drain.dropped));
    }
    for (const key of this.flows.keys()) if (!seen.has(key)) this.flows.delete(key);
  }
}

/** What tells a consumer from others. */
export function keyOf(consumer) {
  return `${consumer.stage} ${consumer.address} ${consumer.name}`;
}

/** All envelopes of a table of reasons. */
export function summed(dropped) {
  return Object.values(dropped ?? {}).reduce((sum, envelopes) => sum + Number(envelopes), 0);
}

function step(source, envelopes, bytes, seconds) {
  if (seconds <= 0) return;
  const now = grown(source.envelopes, envelopes) / seconds;
  source.rate = settled(smooth(source.rate, now));
  source.byteRate = settled(smooth(source.byteRate, grown(source.bytes, bytes) / seconds));
  source.history.push(now);
  if (source.history.length > HISTORY) source.history.shift();
  [source.envelopes, source.bytes] = [envelopes, bytes];
}

function grown(before, after) {
  return after >= before ? after - before : after;
}

function smooth(before, now) {
  return before + SMOOTHING * (now - before);
}

function settled(rate) {
  return rate < 0.02 ? 0 : rate;
}
