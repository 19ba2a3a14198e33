// What the log holds, with a server, a stream and a list that the test plays. Run by `node --test`.

import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";

import { newest, older } from "../back.js";
import { fromEnvelope } from "../line.js";
import { HELD, Tail } from "../tail.js";

const base64 = (text) => Buffer.from(text).toString("base64");
const envelope = (timestamp, text = `at ${timestamp}`, source = "a") => ({
  timestamp: String(timestamp),
  source_id: source,
  instance_id: "0",
  log: { payload: base64(text), type: "OUT" },
});

let cache = {}; // envelopes by source, oldest first
let sockets = [];
let asked = [];

globalThis.location = { protocol: "http:", host: "here" };
globalThis.WebSocket = class {
  constructor(url) {
    this.query = new URL(url).searchParams;
    sockets.push(this);
  }

  close() {
    this.closed = true;
  }

  say(message) {
    this.onmessage({ data: JSON.stringify(message) });
  }
};
globalThis.fetch = async (path) => {
  const url = new URL(path, "http://here");
  asked.push(url);
  const get = (name) => url.searchParams.get(name);
  const source = decodeURIComponent(url.pathname.split("/").pop());
  const end = BigInt(get("end_time") ?? 1e18);
  let batch = (cache[source] ?? []).filter(({ timestamp }) => BigInt(timestamp) < end).toReversed();
  // The cache never splits a run of equal times.
  const limit = Number(get("limit"));
  const edge = batch[limit - 1]?.timestamp;
  batch = batch.filter((found, place) => place < limit || found.timestamp === edge);
  return {
    ok: true,
    status: 200,
    headers: new Map(),
    json: async () => ({ envelopes: { batch: structuredClone(batch) } }),
  };
};

beforeEach(() => {
  cache = {};
  sockets = [];
  asked = [];
});

const texts = (lines) => lines.map((line) => line.text);

test("reading back gives each row once, also at equal times", async () => {
  cache.a = [1, 2, 2, 2, 3, 4].map((time, place) => envelope(time, `a${place}`));
  const held = [3, 4].map((time, place) => fromEnvelope(envelope(time, `a${place + 4}`)));
  const page = await older(["a"], "3", held, ["log"]);
  assert.deepEqual([texts(page.lines), page.more], [["a0", "a1", "a2", "a3"], false]);
  const rest = await older(["a"], "2", [fromEnvelope(envelope(2, "a3"))], ["log"]);
  assert.deepEqual(texts(rest.lines), ["a0", "a1", "a2"]);
  assert.deepEqual((await older(["a"], "1", [fromEnvelope(envelope(1, "a0"))], ["log"])).lines, []);
});

test("of several sources only what is known of all", async () => {
  cache.a = Array.from({ length: 3000 }, (_, at) => envelope(10_000 + at, `a${at}`));
  cache.b = Array.from({ length: 30 }, (_, at) => envelope(10_000 + 100 * at, `b${at}`, "b"));
  const lines = [];
  let bound = "20000";
  for (let pages = 0; ; pages += 1) {
    const page = await older(["a", "b"], bound, lines, ["log"]);
    lines.unshift(...page.lines);
    if (!page.more) break;
    bound = lines[0].nanos;
    assert.ok(pages < 10);
  }
  const times = lines.map((line) => Number(line.nanos));
  assert.deepEqual(
    times,
    times.toSorted((one, other) => one - other),
  );
  assert.equal(new Set(texts(lines)).size, 3030);
  assert.equal(await newest(["a"], 10, ["log"]), "12990");
});

// A list of 50 rows, which may be anywhere.
class Screen {
  following = true;
  scroller = { clientHeight: 1000, scrollTop: 0 };
  open = null;
  top = 0; // the number of the first row in sight

  constructor(store) {
    this.store = store;
  }

  follow(following) {
    this.following = following;
    this.top = this.store.lines.end;
  }

  sight() {
    return [this.top, this.top + 50];
  }

  below() {
    return Math.max(0, this.store.lines.end - this.top - 50);
  }

  rowHeight() {
    return 20;
  }

  close() {}
  shift() {}
  paint() {}
}

async function tailOf(place) {
  let sent = 0;
  const tail = new Tail({ changed: () => {}, unauthorized: () => {}, total: () => sent });
  tail.list = new Screen(tail.store);
  await tail.open(place, false);
  let next = 0;
  return {
    tail,
    send(count) {
      sent += count;
      for (let left = count; left > 0; left -= 500) {
        const batch = Array.from({ length: Math.min(500, left) }, (_, at) => envelope(1_000_000 + next + at));
        if (sockets.at(-1).closed) return;
        next += batch.length;
        sockets.at(-1).say({ batch, cursor: String(next) });
      }
    },
    next: () => next,
  };
}

test("who follows has the newest rows, and no more", async () => {
  const { tail, send } = await tailOf({ sources: ["a"], everything: false, time: "" });
  assert.deepEqual(sockets[0].query.getAll("source_id"), ["a"]);
  assert.ok(sockets[0].query.has("start_time") && sockets[0].query.has("log") && sockets[0].query.has("event"));
  sockets[0].onopen();
  send(HELD + 20_000);
  sockets[0].say({ live: true });
  sockets[0].say({
    gap: { source_id: "a", envelopes: "7", reason: "queue_full", stage: "doppler", last_timestamp: "5" },
  });
  assert.ok(tail.store.lines.length <= HELD + 5000);
  assert.deepEqual([tail.received, tail.lost, tail.state], [HELD + 20_000, 7, "live"]);
});

test("who reads further up loses none, and what is held is bounded", async () => {
  const { tail, send, next } = await tailOf({ sources: ["a"], everything: false, time: "" });
  sockets[0].onopen();
  send(1000);
  sockets[0].say({ live: true });
  tail.follow(false);
  tail.list.top = 500;
  send(150_000);
  assert.ok(tail.suspended && sockets[0].closed && tail.store.lines.length <= 101_000);
  const held = next();
  // Reading on: what is above goes, and the stream goes on behind what is held.
  tail.list.top = tail.store.lines.end - 100;
  tail.scrolled(false, 10_000);
  assert.equal(sockets.length, 2);
  assert.equal(sockets[1].query.get("after"), String(held));
  sockets[1].onopen();
  send(1000);
  const kept = [...tail.held()].filter((line) => line.kind === "log").map((line) => Number(line.nanos));
  assert.deepEqual(
    kept,
    kept.map((_, at) => kept[0] + at),
    "without a gap or a repeat",
  );
  assert.equal(kept.at(-1), 1_000_000 + held + 999);
});

test("a link reads history as far as it is looked at", async () => {
  cache.a = [envelope(999_999, "before")];
  const { tail, send } = await tailOf({ sources: ["a"], everything: false, time: "1000000" });
  assert.equal(sockets[0].query.get("start_time"), "1000000");
  while (tail.reading === "back") await new Promise(setImmediate);
  tail.list.top = 0;
  sockets[0].onopen();
  send(50_000);
  assert.ok(tail.suspended && tail.store.lines.length < 10_000, `${tail.store.lines.length} rows`);
  assert.equal(texts([...tail.held()])[0], "before");
});

test("an interruption says how it goes on", async () => {
  const { tail, send } = await tailOf({ sources: ["a"], everything: false, time: "" });
  sockets[0].onopen();
  send(10);
  sockets[0].onclose({ code: 1006, reason: "" });
  assert.equal(tail.state, "waiting");
  tail.stream.hurry();
  assert.equal(sockets[1].query.get("after"), "10");
  sockets[1].onopen();
  assert.match(texts([...tail.held()]).at(-1), /goes on where it ended/);
  tail.stream.suspend();
});
