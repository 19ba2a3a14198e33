// One subscription over WebSocket, which goes on where it ended.
//
// What enters: what to subscribe to, and from when. What leaves: batches, gaps, the word that history is over, and how the connection is
// doing. With a start each batch has a cursor: after an interruption the next connection begins behind it, without a gap or a repeat.

const FIRST_WAIT = 250;
const LONGEST_WAIT = 8000;
const STEADY = 5000;

/** The parameters of the kinds of envelopes that a log shows, and of those that charts do. */
export const LOG_KINDS = ["log", "event"];
export const METRIC_KINDS = ["counter", "gauge", "timer"];

/**
 * `subscription` is `{ sources, kinds, start }`; no sources means everything, live only. `on` has `batch(envelopes)`, `gap(gap)`,
 * `live()`, `missing(addresses)`, `state(name, detail)` with `connecting`, `open`, `waiting` or `closed`, and `resumed(exactly)`.
 */
export class Stream {
  constructor(subscription, on) {
    this.subscription = subscription;
    this.on = on;
    this.cursor = "";
    this.socket = null;
    this.timer = 0;
    this.wait = FIRST_WAIT;
    this.interrupted = false;
    this.opened = 0;
    this.stopped = true;
  }

  /** Connects, or goes on after `suspend`. */
  start() {
    if (!this.stopped) return;
    this.stopped = false;
    this.connect();
  }

  /** Stops reading: what comes from now on waits in the cache, and `start` goes on there. */
  suspend() {
    this.stopped = true;
    clearTimeout(this.timer);
    const { socket } = this;
    this.socket = null;
    socket?.close(1000);
    this.on.state("closed", "");
  }

  /** Connects now instead of later. */
  hurry() {
    if (this.stopped || this.socket) return;
    clearTimeout(this.timer);
    this.connect();
  }

  address() {
    const { sources, kinds, start } = this.subscription;
    const query = [...sources.map((source) => `source_id=${encodeURIComponent(source)}`), ...kinds];
    if (this.cursor) query.push(`after=${encodeURIComponent(this.cursor)}`);
    else if (start && sources.length > 0) query.push(`start_time=${encodeURIComponent(start)}`);
    return `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/v2/stream?${query.join("&")}`;
  }

  connect() {
    this.on.state("connecting", "");
    const socket = new WebSocket(this.address());
    this.socket = socket;
    const current = () => this.socket === socket;
    socket.onopen = () => {
      if (!current()) return;
      this.opened = performance.now();
      this.on.state("open", "");
      if (this.interrupted) this.on.resumed(this.cursor !== "");
      this.interrupted = false;
    };
    socket.onmessage = ({ data }) => {
      if (current()) this.take(data);
    };
    socket.onclose = ({ code, reason }) => {
      if (!current()) return;
      this.socket = null;
      // One that held for a while starts again at once; one that is refused is asked less and less often.
      if (this.opened && performance.now() - this.opened > STEADY) this.wait = FIRST_WAIT;
      if (this.opened) this.interrupted = true;
      this.opened = 0;
      this.on.state("waiting", reason || (code === 1008 ? "authorization has expired" : ""));
      this.timer = setTimeout(() => this.connect(), this.wait * (0.75 + Math.random() / 2));
      this.wait = Math.min(this.wait * 2, LONGEST_WAIT);
    };
  }

  take(data) {
    let message;
    try {
      message = JSON.parse(data);
    } catch {
      return; // not of this protocol
    }
    if (message.batch) {
      this.on.batch(message.batch);
      if (message.cursor) this.cursor = message.cursor;
    } else if (message.gap) {
      this.on.gap(message.gap);
    } else if (message.live) {
      this.on.live();
    } else if (message.missing) {
      this.on.missing(message.missing);
    }
  }
}
