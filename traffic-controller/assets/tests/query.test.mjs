// Queries on the page, as far as they need no browser: what is typed, what is offered, what is answered. Run by `node --test`.

import assert from "node:assert/strict";
import { test } from "node:test";

import { chart, key, number, range, remembered, rows, telling } from "../answer.js";
import { Refused, evaluate } from "../api.js";
import { Names, selector } from "../names.js";
import { context, offers, placed, taken, withSources } from "../promql.js";
import { decode, encode } from "../permalink.js";

test("selectors that name no source get the chosen ones", () => {
  const of = {
    "sum(rate(requests[1m]))": 'sum(rate(requests{source_id="a"}[1m]))',
    'x{code="200"}': 'x{source_id="a",code="200"}',
    "x{}": 'x{source_id="a"}',
    '{__name__=~"x|y"}': '{source_id="a",__name__=~"x|y"}',
    "x { } offset 5m": 'x {source_id="a" } offset 5m',
    'x{source_id="b"} / y': 'x{source_id="b"} / y{source_id="a"}',
    'x{code="1", source_id =~ "b|c"}': 'x{code="1", source_id =~ "b|c"}',
    'x{source_id!="b"}': 'x{source_id="a",source_id!="b"}',
    "sum by (source_id, x) (y)": 'sum by (source_id, x) (y{source_id="a"})',
    "sum(x) without (y)": 'sum(x{source_id="a"}) without (y)',
    "SUM BY (x) (y)": 'SUM BY (x) (y{source_id="a"})',
    "x and on (i) group_left (z) y or w":
      'x{source_id="a"} and on (i) group_left (z) y{source_id="a"} or w{source_id="a"}',
    "max_over_time(rate(x[5m])[1h:1m] offset -1d)": 'max_over_time(rate(x{source_id="a"}[5m])[1h:1m] offset -1d)',
    "x > bool 1e3 + Inf": 'x{source_id="a"} > bool 1e3 + Inf',
    "x @ end() + count": 'x{source_id="a"} @ end() + count{source_id="a"}',
    'label_replace(x, "source_id", "$1", "b", "(.*)")':
      'label_replace(x{source_id="a"}, "source_id", "$1", "b", "(.*)")',
    "x # and y\n+ 'z'": "x{source_id=\"a\"} # and y\n+ 'z'",
    "time() + vector(0x1f)": "time() + vector(0x1f)",
    'x{a="}"} + y': 'x{source_id="a",a="}"} + y{source_id="a"}',
    "x{a='\\'y'}": "x{source_id=\"a\",a='\\'y'}",
    "x{": "x{",
    "": "",
  };
  for (const [query, expected] of Object.entries(of)) assert.equal(withSources(query, ["a"]), expected, query);
  assert.equal(withSources("x", []), "x");
  assert.equal(withSources("x", ["a", 'b"', "a"]), 'x{source_id=~"a|b\\""}');
  assert.equal(withSources("x + y", ["a\\|b"]), 'x{source_id="a\\\\|b"} + y{source_id="a\\\\|b"}');
  const long = "(".repeat(2000) + "\"{'`[".repeat(400);
  assert.equal(withSources(long, ["a"]).length > 0, true);
});

test("the place of an error is that in what was typed", () => {
  const said = (place, query, sources = ["a"]) =>
    placed(`x: ${place}: parse error: y`, query, sources).slice(3).split(": ")[0];
  const column = withSources("sum(rate(x[1m])", ["a"]).length + 1;
  assert.equal(said(`1:${column}`, "sum(rate(x[1m])"), "1:16");
  assert.equal(said("1:5", "sum(requests"), "1:5");
  assert.equal(said("2:18", "x +\ny ^^"), "2:3");
  assert.equal(said("1:11", "x + y"), "1:2", "in the midst of what was put in");
  assert.equal(said("1:3", '"😀" + x', ["a"]), "1:3");
  assert.equal(said("9:99", "x"), "1:2");
  assert.equal(said("1:7", "x + y +", []), "1:7");
  assert.equal(placed("too long", "x", ["a"]), "too long");
});

// The caret is at the bar.
const at = (text) => context(text.replace("|", ""), text.indexOf("|"));

test("what stands at the caret is known", () => {
  assert.deepEqual(at("sum(ra|"), { kind: "word", from: 4, to: 6, typed: "ra" });
  assert.deepEqual(at("sum(ra|te(x"), { kind: "word", from: 4, to: 8, typed: "ra" });
  assert.deepEqual(at("x{|}"), { kind: "label", metric: "x", from: 2, to: 2, typed: "" });
  assert.deepEqual(at('rate(x{a="b", co|}[1m])'), { kind: "label", metric: "x", from: 14, to: 16, typed: "co" });
  assert.equal(at("{co|}").metric, "");
  const value = { kind: "value", label: "code", metric: "x", quote: '"' };
  assert.deepEqual(at('x{code="2|"}'), { ...value, from: 8, to: 9, typed: "2", closed: true });
  assert.deepEqual(at('x{code!~"2|'), { ...value, from: 9, to: 10, typed: "2", closed: false });
  assert.deepEqual(at("sum by (in|) (x{})"), { kind: "label", metric: "x", from: 8, to: 10, typed: "in" });
  assert.equal(at("sum by (in|) (rate(x[1m]))").metric, "x");
  for (const nothing of ["|", "sum(|", "1e|3", "rate(x[5|m])", "x[5m:|", 'x{code="2"|}', '"te|xt"', "x + |", "x{a=|}"])
    assert.equal(at(nothing), null, nothing);
});

test("what could stand there is offered, and taken", () => {
  const known = {
    metrics: ["requests", "irate_like"],
    labels: ["code", "instance_id", "bad.label"],
    values: ['a"b', "200"],
  };
  const texts = (query) => offers(at(query), known).map(({ text }) => text);
  assert.deepEqual(texts("ra|").slice(0, 2), ["rad", "rate"]);
  assert.ok(texts("ra|").includes("irate_like") && texts("ra|").includes("irate"));
  assert.deepEqual(texts("req|"), ["requests"]);
  assert.deepEqual(texts("x{|}"), ["code", "instance_id", "bad.label"]);
  assert.deepEqual(texts('x{code="2|"}'), ["200"]);
  assert.deepEqual(texts("requests|"), [], "what is there already is not offered");
  const take = (query, place) => {
    const here = at(query);
    const [text, caret] = taken(query.replace("|", ""), here, offers(here, known)[place]);
    return `${text.slice(0, caret)}|${text.slice(caret)}`;
  };
  assert.equal(take("sum(rat|", 0), "sum(rate(|");
  assert.equal(take("rat|(x)", 0), "rate|(x)");
  assert.equal(take("req|[1m]", 0), "requests|[1m]");
  assert.equal(take("x{co|=", 0), "x{code|=");
  assert.equal(take("x{b|", 0), 'x{"bad.label"|');
  assert.equal(take('x{code="|"}', 0), 'x{code="a\\"b|"}');
  assert.equal(take('x{code="20|', 0), 'x{code="200"|');
  assert.ok(offers({ kind: "value", typed: "" }, { values: Array(5000).fill("v") }).length <= 50);
});

test("an answer is lines and rows, and bounded", () => {
  const values = [
    [10, "1.5"],
    [12, "NaN"],
    [14, "+Inf"],
    [16, "-2"],
  ];
  const one = { metric: { job: "j", id: "0" }, values };
  const two = { metric: { job: "j", id: "1" }, values: [] };
  const { data, left } = chart([one, two], { start: 10, end: 16, step: 2 });
  assert.deepEqual(
    [data.from, data.to, data.step, left, data.lines[0].label, data.lines[0].key],
    [10_000, 16_000, 2000, 0, "id=0", '{id="0", job="j"}'],
  );
  assert.deepEqual(data.lines[0].points, [
    [10_000, 1.5],
    [16_000, -2],
  ]);
  const many = chart(Array(70).fill(one), { start: 0, end: 1, step: 1 });
  assert.deepEqual([many.data.lines.length, many.left], [20, 50]);
  assert.deepEqual(telling([{ a: "1" }, { a: "1", b: "2" }]), ["b"]);
  assert.deepEqual(telling([{ a: "1" }]), ["a"]);
  assert.equal(key({ b: "2", a: '"' }), '{a="\\"", b="2"}');
  assert.deepEqual(["+Inf", "-Inf", "0.25"].map(number), [Infinity, -Infinity, 0.25]);
  const vector = (count) => ({
    resultType: "vector",
    result: Array(count).fill({ metric: { id: "0" }, value: [1, "0.5"] }),
  });
  assert.deepEqual(rows(vector(1)), { rows: [{ name: "id=0", key: '{id="0"}', text: "0.5" }], left: 0 });
  assert.deepEqual([rows(vector(150)).rows.length, rows(vector(150)).left], [100, 50]);
  assert.equal(rows({ resultType: "scalar", result: [1, "NaN"] }).rows[0].text, "NaN");
  assert.deepEqual(range(1_000_001, 300, 150), { start: 999_700, end: 1_000_000, step: 2 });
  assert.deepEqual(range(1_000_001, 300, 150), range(1_000_000, 300, 150));
});

test("what was asked is remembered once, and an address keeps it", () => {
  assert.deepEqual(remembered(["a", "b"], "a"), ["b", "a"]);
  assert.equal(remembered(Array(80).fill("x"), "y").length <= 50, true);
  const place = { ...decode(""), view: "metrics", sources: ["app"], promql: 'rate(x{a="&#"}[1m])' };
  assert.deepEqual(decode(encode(place)), place);
  assert.equal(decode(`#pq=${"x".repeat(9000)}`).promql.length, 4096);
});

test("names are asked for once, and whoever cannot be asked has none", async (t) => {
  const asked = [];
  t.mock.method(globalThis, "fetch", async (path) => {
    asked.push(decodeURIComponent(String(path)).replaceAll("+", " "));
    if (path.includes("broken")) return new Response("", { status: 500 });
    const data = path.startsWith("/api/v1/series") ? [{ __name__: "x", code: "200" }, { code: "404" }] : ["one", "two"];
    return Response.json({ status: "success", data });
  });
  const names = new Names();
  const word = { kind: "word", typed: "x" };
  assert.deepEqual(await names.known(word, ["a"]), { metrics: ["one", "two"] });
  await names.known(word, ["a"]);
  assert.deepEqual(asked, ['/api/v1/label/__name__/values?match[]={source_id="a"}']);
  assert.deepEqual(await names.known({ kind: "label", metric: "x" }, ["a", "b"]), { labels: ["code"] });
  assert.deepEqual(await names.known({ kind: "value", metric: "x", label: "code" }, ["a", "b"]), {
    values: ["200", "404"],
  });
  assert.equal(asked.at(-1), '/api/v1/series?match[]=x{source_id=~"a|b"}');
  assert.equal(asked.length, 2);
  await names.known({ kind: "value", metric: "x", label: "source_id" }, ["a"]);
  assert.equal(asked.at(-1), "/api/v1/label/source_id/values");
  assert.deepEqual(await names.known({ kind: "value", metric: "", label: "broken" }, []), { values: [] });
  assert.equal(selector("x", []), "x");
});

test("a query is sent as a form, and its error is the server's", async (t) => {
  let said = Response.json({ status: "success", data: { resultType: "vector", result: [] }, warnings: ["w"] });
  const fetched = t.mock.method(globalThis, "fetch", async () => said);
  const signal = AbortSignal.timeout(1000);
  assert.deepEqual((await evaluate("query", { query: "a b", time: 5 }, signal)).warnings, ["w"]);
  const [path, { method, body }] = fetched.mock.calls[0].arguments;
  assert.deepEqual([path, method, String(body)], ["/api/v1/query", "POST", "query=a+b&time=5"]);
  said = Response.json({ status: "error", errorType: "bad_data", error: "1:2: parse error" }, { status: 400 });
  const refused = await evaluate("query", {}, signal).catch((error) => error);
  assert.ok(refused instanceof Refused);
  assert.deepEqual([refused.status, refused.said], [400, "1:2: parse error"]);
});
