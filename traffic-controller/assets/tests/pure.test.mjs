// The parts of the page that need no browser. Run by `node --test`.

import assert from "node:assert/strict";
import { test } from "node:test";

import { isSpecial, parse, plain } from "../ansi.js";
import { compile, typeOf } from "../filter.js";
import { bytes, clock, duration, full, nanos, shifted, short } from "../format.js";
import { levelOf } from "../level.js";
import { fromEnvelope, fromGap, mark, summary, tagsOf } from "../line.js";
import { model } from "../model.js";
import { decode, encode } from "../permalink.js";
import { Rates } from "../rates.js";
import { Series, percentile, ticks } from "../series.js";
import { Deque, Store } from "../store.js";

const base64 = (text) => Buffer.from(text).toString("base64");
const log = (text, more = {}) =>
  fromEnvelope({ timestamp: "1", source_id: "a", log: { payload: base64(text), type: more.type ?? "OUT" }, ...more });
const texts = (runs) => runs.map(({ text }) => text).join("");

test("numbers are short, and times are exact", () => {
  assert.deepEqual([0, 0.01, 0.25, 9.96, 12.4, 999.7, 1234, 99_960, 1_500_000].map(short), [
    "0",
    "<0.1",
    "0.3",
    "10",
    "12",
    "1k",
    "1.2k",
    "100k",
    "1.5M",
  ]);
  assert.deepEqual([bytes(0), bytes(512), bytes(2_300_000)], ["0 B", "512 B", "2.3 MB"]);
  assert.equal(duration(12_500_000), "12.5 ms");
  assert.equal(full("1764507787042137009"), "2025-11-30T13:03:07.042137009Z");
  assert.equal(full("-1"), "1969-12-31T23:59:59.999999999Z");
  assert.equal(full("9223372036854775807").slice(0, 4), "2262");
  assert.match(clock(1764507787042), /:\d\d:07\.042$/);
  assert.equal(shifted(nanos(1764507787042), -1), "1764507787041999999");
});

test("colours become classes or rgb, and nothing else gets through", () => {
  const styled = parse("a\x1b[1;31mred\x1b[0m \x1b[38;5;208mo\x1b[48;2;1;2;3mt\x1b[mz");
  assert.equal(texts(styled), "ared otz");
  assert.deepEqual(styled[1].style, { classes: "sgr-bold fg-1", color: null, background: null });
  assert.equal(styled.find(({ text }) => text === "o").style.color, "rgb(255, 135, 0)");
  assert.equal(styled.find(({ text }) => text === "t").style.background, "rgb(1, 2, 3)");
  assert.equal(styled.at(-1).style, null);
  assert.equal(parse("\x1b[7mx")[0].style.classes, "fg-ground bg-ink");
  assert.equal(parse("\x1b[38;2;300;0;0mx")[0].style, null);
  assert.equal(parse("\x1b[92mx")[0].style.classes, "fg-10");
  // Cursor moves, titles, links and unfinished sequences are taken out; the rest of control is shown.
  assert.equal(texts(parse("a\x1b[2Jb\x1b]0;title\x07c\x1b]8;;http://x\x1b\\d\x1b[")), "abcd");
  assert.equal(texts(parse("a\x00\x07\r\tb\n\u202ec")), "a␀␇␍\tb⏎\\u202ec");
  assert.equal(plain("\x1b[31mERROR\x1b[0m x"), "ERROR x");
  assert.ok(!isSpecial("plain text\twith a tab") && isSpecial("\x1b[0m"));
  assert.ok(parse("\x1b[31mx\x1b[0my".repeat(5000)).length <= 501);
});

test("levels are found in JSON, logfmt and before the text", () => {
  const levels = {
    '{"msg":"x","level":"warning"}': "warn",
    '{"severity": "CRITICAL"}': "error",
    '{"level":30,"msg":"ERROR"}': "info",
    '{"msg":"no ERROR here"}': "",
    'ts=1 level=debug msg="an ERROR"': "debug",
    "2026-11-30 12:00:00 [ERROR] it broke": "error",
    "ERROR: it broke": "error",
    "2026-11-30T12:00:00Z  WARN module: x": "warn",
    "[warn] something": "warn",
    "error: could not compile": "error",
    "E0412 12:00:00.0 file.go:1] x": "error",
    "no ERRORS at all": "",
    "an information": "",
    "": "",
  };
  for (const [text, level] of Object.entries(levels)) assert.equal(levelOf(text), level, text);
});

test("an envelope becomes a row", () => {
  const line = log("grüße\n", { instance_id: "3", tags: { b: "2" }, deprecated_tags: { a: { integer: "1" } } });
  assert.deepEqual([line.text, line.instance, line.err, typeOf(line)], ["grüße", "3", false, "out"]);
  assert.deepEqual(tagsOf(line), { a: "1", b: "2" });
  assert.equal(log("\xff\xfe").text.length > 0, true);
  assert.equal(typeOf(log("x", { type: "ERR" })), "err");
  assert.equal(fromEnvelope({ timestamp: "5" }), null);
  assert.equal(fromEnvelope({ timestamp: "5", counter: { name: "hits", delta: "2", total: "9" } }).text, "hits +2 = 9");
  assert.equal(
    fromEnvelope({ timestamp: "5", gauge: { metrics: { cpu: { unit: "percentage", value: 12.5 } } } }).text,
    "cpu=12.5 percentage",
  );
  assert.equal(
    fromEnvelope({ timestamp: "5", timer: { name: "http", start: "0", stop: "1500000" } }).text,
    "http 1.5 ms",
  );
  const gap = fromGap({
    source_id: "app",
    envelopes: "1200",
    reason: "queue_full",
    stage: "doppler",
    last_timestamp: "7",
  });
  assert.deepEqual(
    [gap.kind, gap.lost, gap.text],
    ["gap", 1200, "1,200 lines of app lost here: queue_full at the doppler"],
  );
  const marker = fromEnvelope({
    timestamp: "5",
    tags: { envelopes: "3" },
    event: { title: "hydrant.gap", body: "3 envelopes of a lost here" },
  });
  assert.deepEqual([marker.kind, marker.lost], ["gap", 3]);
});

test("lines in JSON have a message and fields", () => {
  const { json } = log('{"level":"info","msg":"done","status":200,"path":"/x","time":"t"}');
  assert.deepEqual(summary(json), {
    message: "done",
    fields: [
      ["status", "200"],
      ["path", "/x"],
    ],
  });
  assert.equal(log("{not json}").json, null);
  assert.equal(log("[1]").json, null);
});

test("filters take text, expressions and their opposite", () => {
  const lines = [log("GET /api/v1 200"), log("ERROR timeout"), log("\x1b[31mTime\x1b[0mout", { type: "ERR" })];
  const matching = (options) => lines.filter(compile(options).test).map((line) => lines.indexOf(line));
  assert.deepEqual(matching({ query: "TIMEOUT" }), [1, 2]);
  assert.deepEqual(matching({ query: "!timeout" }), [0]);
  assert.deepEqual(matching({ query: "/^(GET|POST) /" }), [0]);
  assert.deepEqual(matching({ query: "/api/v1" }), [0]);
  assert.deepEqual(matching({ query: "(" }), []);
  assert.deepEqual(matching({ levels: ["error"] }), [1]);
  assert.deepEqual(matching({ types: ["err"] }), [2]);
  assert.ok(compile({ query: "/(/" }).error && compile({ query: "/(/" }).test(lines[0]));
  assert.ok(
    compile({ query: "x" }).test(fromGap({ envelopes: "1" })) && compile({ query: "x" }).test(mark("live", "1")),
  );
  assert.deepEqual(compile({ query: "t" }).ranges("a tat"), [
    [2, 3],
    [4, 5],
  ]);
  assert.deepEqual(compile({ query: "/x*/" }).ranges("axxb"), [[1, 3]]);
});

test("rows keep their numbers at both ends", () => {
  const deque = new Deque();
  for (let at = 0; at < 3000; at += 1) deque.push(at);
  deque.drop(1000);
  for (let at = 999; at >= 500; at -= 1) deque.unshift(at);
  assert.deepEqual(
    [deque.first, deque.end, deque.at(500), deque.at(2999), deque.at(499), deque.at(3000)],
    [500, 3000, 500, 2999, undefined, undefined],
  );
  deque.cut(1000);
  assert.deepEqual([deque.end, deque.at(1999), deque.at(2000)], [2000, 1999, undefined]);
});

test("a filter goes over what is held, while rows come and go", () => {
  const store = new Store();
  const numbered = (from, to) => Array.from({ length: to - from }, (_, at) => log(`line ${from + at}`));
  store.append(numbered(0, 1000));
  store.setFilter(compile({ query: "7" }));
  assert.ok(store.refilter(10));
  store.append(numbered(1000, 1010));
  assert.equal(store.evict(100), 0);
  while (store.refilter(100));
  assert.deepEqual([store.row(0).text, store.row(store.size - 1).text], ["line 107", "line 1007"]);
  assert.equal(store.prepend(numbered(90, 100)), 1);
  assert.equal(store.row(0).text, "line 97");
  assert.equal(store.placeOf(store.row(3).seq), 3);
  assert.equal(store.placeOf(Infinity), store.size);
  assert.equal(store.evict(20), 2);
  store.setFilter(null);
  store.refilter(Infinity);
  assert.equal(store.size, store.lines.length);
});

test("a place survives its way through the address", () => {
  const place = {
    view: "metrics",
    sources: ["a b", "c&d=#"],
    everything: false,
    time: "17",
    query: "/x+/ <b>",
    levels: ["error", ""],
    types: ["out"],
    metrics: ["cpu"],
    promql: "rate(x[1m])",
  };
  assert.deepEqual(decode(encode(place)), place);
  const usual = decode("");
  assert.equal(encode(usual), "");
  assert.deepEqual(decode("#view=nothing&t=x&lv=loud&ty=&s=a&s=a").sources, ["a"]);
  assert.deepEqual({ ...decode("#view=nothing&t=x&lv=loud&ty=") }, usual);
});

test("rates are of counters, also of those that start again", () => {
  const rates = new Rates();
  const look = (seconds, ...sources) => {
    const told = sources.map(([id, envelopes]) => ({
      source_id: id,
      envelopes: String(envelopes),
      bytes: String(10 * envelopes),
      held: "0",
      oldest_timestamp: "0",
      newest_timestamp: "0",
    }));
    const stage = {
      stage: "doppler",
      address: "d",
      received: String(100 * seconds),
      delivered: "0",
      dropped: { a: "1", b: "2" },
    };
    rates.update(
      { time: `${seconds}000000000`, sources: told, stages: [stage], consumers: [], drains: [] },
      seconds * 1000,
    );
  };
  look(1, ["quiet", 1], ["loud", 1]);
  for (let at = 2; at < 30; at += 1) look(at, ["quiet", at], ["loud", 1000 * at]);
  rates.sort(30_000, false);
  assert.ok(
    Math.abs(rates.sources.get("loud").rate - 1000) < 1 && Math.abs(rates.sources.get("loud").byteRate - 10_000) < 10,
  );
  assert.deepEqual(rates.order, ["loud", "quiet"]);
  assert.ok(Math.abs(rates.per("received doppler d") - 100) < 1e-6);
  look(30, ["quiet", 30], ["loud", 5], ["new", 7]);
  assert.equal(rates.sources.get("loud").history.at(-1), 5);
  assert.equal(rates.sources.get("new").history.at(-1), 7);
  rates.lose("gone", 12);
  look(31, ["quiet", 31]);
  assert.deepEqual([rates.sources.has("loud"), rates.sources.get("gone").lost], [false, 12]);
});

test("metrics become lines", () => {
  const series = new Series(150); // a step a second
  for (let at = 0; at < 100; at += 1) {
    const timestamp = `${1000 + at}500000000`;
    series.add({ timestamp, instance_id: "0", gauge: { metrics: { cpu: { unit: "percentage", value: at } } } });
    series.add({ timestamp, counter: { name: "hits", delta: "5", total: "0" } });
    series.add({ timestamp, timer: { name: "http", start: "0", stop: String(at * 1_000_000) } });
  }
  const now = 1100_000;
  assert.deepEqual(series.names(), ["cpu", "hits", "http"]);
  const cpu = series.chart("cpu", now);
  assert.deepEqual([cpu.unit, cpu.lines[0].label, cpu.lines[0].points.at(-1)], ["percentage", "0", [1099_500, 99]]);
  const hits = series.chart("hits", now);
  assert.deepEqual([hits.unit, hits.lines[0].points.at(-1)[1]], ["per s", 5]);
  assert.deepEqual(
    series.chart("http", now).lines.map(({ label }) => label),
    ["p95", "p50"],
  );
  assert.equal(series.chart("http", now).rate, 1);
  // statsd: a running total and durations, both as gauges.
  const statsd = new Series(150);
  for (let at = 0; at < 50; at += 1) {
    statsd.add({
      timestamp: `${1000 + at}500000000`,
      gauge: {
        metrics: {
          visits: { unit: "counter", value: 3 * at },
          took: { unit: "ms", value: at },
          depth: { unit: "gauge", value: 1 },
        },
      },
    });
  }
  assert.equal(statsd.chart("visits", 1050_000).lines[0].points.at(-1)[1], 3);
  assert.deepEqual(
    [statsd.chart("took", 1050_000).kind, statsd.chart("took", 1050_000).lines[0].points.at(-1)[1]],
    ["timer", 49e6],
  );
  assert.deepEqual([statsd.chart("depth", 1050_000).kind, statsd.chart("depth", 1050_000).unit], ["gauge", ""]);
  assert.equal(percentile([5, 1, 3], 0.5), 3);
  assert.deepEqual(ticks(0, 10, 5), [0, 2, 4, 6, 8, 10]);
  assert.equal(series.chart("nothing", now), null);
});

test("the picture has what answers, what is missing, and what flows between", () => {
  const rates = new Rates();
  const roles = new Map();
  const look = (seconds, missing) => {
    const at = (rate) => String(rate * seconds);
    const stage = (stage, address, rate, dropped = {}) => ({
      stage,
      address,
      received: at(rate),
      delivered: at(rate),
      dropped,
    });
    const told = {
      time: `${seconds}000000000`,
      sources: [],
      stages: [stage("doppler", "d:1", 100, { queue_full: at(4) }), stage("traffic_controller", "t:1", 50)],
      consumers: [
        {
          stage: "traffic_controller",
          address: "t:1",
          name: "#3",
          taken: at(50),
          dropped: "0",
          waiting_envelopes: "5",
        },
      ],
      drains: [
        {
          address: "x:1",
          name: "logs",
          state: "failing",
          delivered: "0",
          dropped: { expired: at(2) },
          last_error: "refused",
        },
      ],
      missing,
    };
    rates.update(told, 1000 * seconds);
    return model(told, rates, roles);
  };
  const waits = look(1, []);
  assert.deepEqual(
    waits.links.map(({ shown }) => shown),
    [null, null, null, null, null],
  );
  const { columns, links } = look(2, ["d:2"]);
  assert.deepEqual(
    columns.map(([, nodes]) => nodes.map(({ title }) => title)),
    [["agents"], ["doppler", "doppler: cannot be asked"], ["traffic controller", "adapters"], ["consumer #3", "logs"]],
  );
  const between = (from, to) => links.find((link) => link.from.includes(from) && link.to.includes(to));
  assert.deepEqual([between("agents", "d:1").shown, between("agents", "d:1").lost], [100, 4]);
  assert.deepEqual([between("agents", "d:2").rate, between("agents", "d:2").shown], [0, null]);
  assert.deepEqual([between("d:1", "t:1").shown, between("d:2", "t:1").shown], [50, null]);
  assert.deepEqual([between("x:1", "logs").lost, between("t:1", "#3").shown], [2, 50]);
  // One that has answered once is missed under its role.
  assert.deepEqual(
    look(3, ["x:1"]).columns[2][1].map(({ title }) => title),
    ["traffic controller", "adapters", "adapters: cannot be asked"],
  );
});
