// What the log shows: live rows of the selected sources, what is held of them, and what is read back.
//
// What enters: a choice of sources and a place in time. What leaves: rows in a store, and how things stand, for whoever shows it.
// *Invariant*: bounded. Who follows sees the newest rows; who reads further up loses none: when too many have come, the stream stops at
// its cursor, and goes on there once somebody reads on.

import { Unauthorized } from "./api.js";
import { newest, older } from "./back.js";
import { nanos, shifted } from "./format.js";
import { fromEnvelope, fromGap, mark } from "./line.js";
import { Store } from "./store.js";
import { LOG_KINDS, METRIC_KINDS, Stream } from "./stream.js";

/** Rows held while one follows, and at the most while one does not. */
export const HELD = 50_000;
const MOST = 100_000;

const SLACK = 5000; // rows that go at once
const AHEAD = 4000; // rows of history beyond the sight of whoever is not following
const NEAR = 500;
const FIRST_PAGE = 1000;
const FAR_BEHIND = 20_000;

/** `on` has `changed()`, `unauthorized()`, and `total()`: envelopes that the selected sources have sent so far, as the pipeline counts. */
export class Tail {
  constructor(on) {
    this.on = on;
    this.store = new Store();
    this.stream = null;
    this.list = null;
    this.reset({ sources: [], everything: false, time: "" }, false);
  }

  reset(place, withMetrics) {
    this.stream?.suspend();
    this.abort?.abort();
    this.abort = new AbortController();
    Object.assign(this, place, { withMetrics, stream: null });
    this.store.clear();
    this.store.setFilter(this.store.filter);
    this.state = "idle"; // idle, connecting, history, live, waiting
    this.detail = "";
    this.wasLive = false;
    this.received = 0;
    this.lost = 0;
    this.fresh = 0; // rows that came since nobody follows
    this.suspended = false;
    this.stoppedAt = 0;
    this.missing = [];
    this.reading = "no"; // no, back, end, failed
    this.revealed = place.time === "";
  }

  get kinds() {
    return this.withMetrics ? [...LOG_KINDS, ...METRIC_KINDS] : LOG_KINDS;
  }

  get active() {
    return this.everything || this.sources.length > 0;
  }

  /** Shows other sources, from the newest rows on or from a time. */
  async open(place, withMetrics) {
    this.reset(place, withMetrics);
    this.list.close();
    this.list.follow(place.time === "");
    this.on.changed();
    if (!this.active) return;
    const { signal } = this.abort;
    let start = place.time;
    this.state = "connecting";
    if (!start && !this.everything) {
      try {
        start = await newest(this.sources, FIRST_PAGE, this.kinds, signal);
      } catch (error) {
        if (signal.aborted) return;
        if (error instanceof Unauthorized) this.on.unauthorized();
      }
      if (signal.aborted) return;
      start ||= nanos(Date.now() - 60_000);
    }
    this.start = start;
    this.stream = new Stream(
      { sources: this.everything ? [] : this.sources, kinds: this.kinds, start },
      this.handlers(signal),
    );
    this.stream.start();
    if (place.time) this.readBack();
  }

  handlers(signal) {
    const current =
      (handle) =>
      (...told) => {
        if (signal.aborted) return;
        handle(...told);
        this.on.changed();
      };
    return {
      batch: current((envelopes) => this.take(envelopes.map(fromEnvelope).filter(Boolean))),
      gap: current((gap) => {
        this.lost += Number(gap.envelopes ?? 0);
        this.put([fromGap(gap)]);
      }),
      live: current(() => {
        if (!this.wasLive) this.put([mark("live from here on", nanos(Date.now()))]);
        this.wasLive = true;
        this.state = "live";
      }),
      missing: current((addresses) => (this.missing = addresses)),
      resumed: current((exactly) => {
        const text = exactly
          ? "connected again: goes on where it ended"
          : "connected again: what came in between is not shown here";
        this.put([mark(text, nanos(Date.now()))]);
      }),
      state: current((name, detail) => {
        this.detail = detail;
        if (name === "waiting") this.on.unauthorized();
        if (name === "open") this.state = this.everything ? "live" : "history";
        else if (name !== "closed") this.state = name;
      }),
    };
  }

  take(lines) {
    for (const line of lines) if (line.kind !== "gap") this.received += 1;
    this.put(lines);
  }

  put(lines) {
    const shown = this.store.size;
    this.store.append(lines);
    if (!this.list.following) this.fresh += this.store.size - shown;
    this.bound();
    this.list.paint();
  }

  // Keeps to what may be held.
  bound() {
    const { store, list } = this;
    if (list.following) {
      if (store.lines.length > HELD + SLACK) {
        store.evict(store.lines.length - HELD);
        if (this.reading !== "back") this.reading = "no";
      }
      return;
    }
    const replay = this.state === "history" && list.below() > AHEAD;
    if (store.lines.length > MOST) this.evictAbove();
    if ((replay || store.lines.length > MOST) && !this.suspended && this.stream?.cursor) this.suspend();
    else if (store.lines.length > MOST + SLACK) list.shift(-store.evict(store.lines.length - MOST)); // no cursor to stop at
  }

  evictAbove() {
    const sight = this.list.sight();
    const room = sight ? sight[0] - this.store.lines.first - NEAR : 0;
    if (room < SLACK) return false;
    this.list.shift(-this.store.evict(room));
    this.reading = "no";
    return true;
  }

  suspend() {
    this.suspended = true;
    this.stoppedAt = this.on.total();
    this.stream.suspend();
  }

  goOn() {
    if (!this.suspended) return;
    this.evictAbove();
    this.suspended = false;
    this.stream.start();
  }

  /** Rows that came and are not in sight: those held, and about as many as wait in the cache. */
  get unseen() {
    return this.fresh + (this.suspended ? Math.max(0, this.on.total() - this.stoppedAt) : 0);
  }

  /** Follows the newest row, or stops. */
  follow(following) {
    if (following && this.suspended && (this.on.total() - this.stoppedAt > FAR_BEHIND || this.state === "history")) {
      this.open({ sources: this.sources, everything: this.everything, time: "" }, this.withMetrics);
      return;
    }
    this.list.follow(following);
    if (following) {
      this.fresh = 0;
      this.goOn();
      this.bound();
    }
    this.on.changed();
  }

  /** What to do when somebody has scrolled. */
  scrolled(atBottom, top) {
    if (atBottom && !this.list.following && !this.suspended && this.list.open === null && this.state !== "history")
      this.follow(true);
    if (this.list.following) return;
    if (this.suspended && this.list.below() < NEAR) this.goOn();
    if (top < 400) this.readBack();
    this.on.changed();
  }

  /** Looks further back when a filter leaves less than is in sight. */
  fill() {
    const { scroller } = this.list;
    if (this.store.filter && this.store.size * this.list.rowHeight() < scroller.clientHeight) this.readBack();
  }

  /** Reads a page of older rows from the cache; goes on while none of them shows. */
  async readBack() {
    if (this.everything || !this.active || this.reading === "back" || this.reading === "end") return;
    if (this.store.lines.length > MOST - SLACK) {
      // As far as one page holds: the same place, from there on.
      const { nanos: time } = this.store.lines.at(this.store.lines.first);
      await this.open({ sources: this.sources, everything: false, time }, this.withMetrics);
      return;
    }
    const { signal } = this.abort;
    this.reading = "back";
    this.on.changed();
    try {
      let showing = 0;
      for (let pages = 0; showing < 40 && pages < 30 && this.reading === "back"; pages += 1) {
        const page = await older(this.sources, this.front(), this.held(), this.kinds, signal);
        if (signal.aborted) return;
        const added = this.store.prepend(page.lines);
        showing += added;
        this.list.shift(added);
        this.list.paint();
        if (page.partial) this.missing = page.partial.split(", ");
        if (!page.more) this.reading = "end";
        this.on.changed();
      }
      if (this.reading === "back") this.reading = "no";
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Unauthorized) this.on.unauthorized();
      this.reading = "failed";
      this.detail = String(error.message);
    }
    this.on.changed();
  }

  front() {
    const { lines } = this.store;
    for (let seq = lines.first; seq < lines.end; seq += 1)
      if (lines.at(seq).kind !== "mark") return lines.at(seq).nanos;
    return shifted(this.start || nanos(Date.now()), -1);
  }

  *held() {
    const { lines } = this.store;
    for (let seq = lines.first; seq < lines.end; seq += 1) yield lines.at(seq);
  }
}
