// Looks at the pipeline once a second, and at what was lost every few.
//
// What enters: answers of the server. What leaves: overviews, losses by source, and whether the server can be reached and wants to know
// who asks. While nobody sees the page it looks less often.

import { Unauthorized, overview, read } from "./api.js";
import { nanos, shifted } from "./format.js";
import { before } from "./back.js";

const EVERY = 1000;
const HIDDEN = 15_000;
const LOSSES = 5; // looks at the pipeline for one at losses
const LEDGER = "hydrant"; // the source under which the pipeline speaks of itself
const PATIENCE = 10_000;

/** `on` has `overview(told)`, `loss(source, envelopes)`, `unauthorized()`, `away(error)`. */
export class Poll {
  constructor(on) {
    this.on = on;
    this.timer = 0;
    this.running = false;
    this.turn = 0;
    this.seen = "0"; // the time of the newest loss
    document.addEventListener("visibilitychange", () => !document.hidden && this.now());
  }

  /** Looks now, and from now on. */
  now() {
    clearTimeout(this.timer);
    if (!this.running) this.look();
  }

  /** Waits until `now` is called. */
  stop() {
    clearTimeout(this.timer);
    this.stopped = true;
  }

  async look() {
    this.running = true;
    this.stopped = false;
    try {
      const told = await overview(AbortSignal.timeout(PATIENCE));
      this.on.overview(told);
      // Who may not read that source sees no losses.
      if (this.turn % LOSSES === 0 && told.sources.some(({ source_id }) => source_id === LEDGER)) await this.losses();
      this.turn += 1;
    } catch (error) {
      if (error instanceof Unauthorized) this.on.unauthorized();
      else this.on.away(error);
    }
    this.running = false;
    if (!this.stopped) this.timer = setTimeout(() => this.look(), document.hidden ? HIDDEN : EVERY);
  }

  // Counters `lost_envelopes`, one for each source and place where it lost.
  async losses() {
    try {
      for (let pages = 0; pages < 20; pages += 1) {
        const start = this.seen === "0" ? nanos(Date.now() - 24 * 3600_000) : shifted(this.seen, 1);
        const { envelopes } = await read(
          LEDGER,
          { start, kinds: ["counter"], name: "^lost_envelopes$" },
          AbortSignal.timeout(PATIENCE),
        );
        for (const { timestamp, tags, counter } of envelopes) {
          this.on.loss(tags?.lost_source || "other sources", Number(counter.delta));
          if (before(this.seen, timestamp)) this.seen = timestamp;
        }
        if (envelopes.length < 1000) break;
      }
    } catch {
      // The next turn asks again.
    }
  }
}
