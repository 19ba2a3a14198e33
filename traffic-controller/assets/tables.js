// Tables of who reads, and of drains. What enters: an overview and its rates. What leaves: elements, made anew each time.

import { el } from "./dom.js";
import { bytes, count } from "./format.js";
import { named, per, reasons } from "./model.js";
import { keyOf, summed } from "./rates.js";

const MOST_ROWS = 200;

/** Consumers with what they take and what waits for them; nothing where there are none. */
export function consumers(overview, rates) {
  const rows = overview.consumers.slice(0, MOST_ROWS).map((consumer) => [
    named(consumer.name),
    consumer.stage.replaceAll("_", " "),
    { mono: consumer.address },
    { number: per(rates.per(`taken ${keyOf(consumer)}`)) },
    {
      number:
        Number(consumer.waiting_envelopes) > 0
          ? `${count(Number(consumer.waiting_envelopes))} (${bytes(Number(consumer.waiting_bytes))})`
          : "0",
    },
    { number: count(Number(consumer.taken)) },
    { number: count(Number(consumer.dropped)), bad: Number(consumer.dropped) > 0 },
  ]);
  return rows.length === 0
    ? []
    : [table("Consumers", ["name", "reads from", "at", "#per second", "#waiting", "#taken", "#dropped"], rows)];
}

/** Drains with their state and last error; nothing where there are none. */
export function drains(overview, rates) {
  const rows = overview.drains
    .slice(0, MOST_ROWS)
    .map((drain) => [
      drain.name,
      { mono: drain.url },
      { pill: drain.state },
      { number: per(rates.per(`drained ${drain.address} ${drain.name}`)) },
      { number: count(Number(drain.waiting_envelopes)) },
      { number: count(Number(drain.delivered)) },
      { number: count(summed(drain.dropped)), bad: summed(drain.dropped) > 0, title: reasons(drain.dropped) },
      { text: drain.last_error, bad: true },
    ]);
  return rows.length === 0
    ? []
    : [
        table(
          "Drains",
          ["name", "to", "state", "#per second", "#waiting", "#delivered", "#dropped", "last error"],
          rows,
        ),
      ];
}

function table(title, heads, rows) {
  const head = el(
    "tr",
    {},
    ...heads.map((name) =>
      el("th", { scope: "col", class: name.startsWith("#") ? "number" : null }, name.replace("#", "")),
    ),
  );
  const cell = (told) => {
    if (typeof told === "string") return el("td", { title: told }, told);
    if (told.pill !== undefined)
      return el(
        "td",
        {},
        el("span", { class: `pill ${{ ok: "ok", degraded: "warn" }[told.pill] ?? "bad"}` }, told.pill),
      );
    const text = told.number ?? told.mono ?? told.text;
    return el(
      "td",
      {
        class: [told.number !== undefined && "number", told.mono !== undefined && "mono", told.bad && "bad"]
          .filter(Boolean)
          .join(" "),
        title: told.title ?? text,
      },
      text,
    );
  };
  return el(
    "section",
    {},
    el("h3", {}, title),
    el(
      "div",
      { class: "scroll" },
      el("table", {}, el("thead", {}, head), el("tbody", {}, ...rows.map((row) => el("tr", {}, ...row.map(cell))))),
    ),
  );
}
