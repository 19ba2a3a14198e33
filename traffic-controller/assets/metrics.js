// The metrics of the selected sources: their names, and charts of those that were picked.
//
// What enters: envelopes of a stream of their own, from some time back on, so that history and what comes join. What leaves: charts,
// drawn once a second while they are in sight.

import { Chart } from "./chart.js";
import { byId, el, say, set } from "./dom.js";
import { nanos } from "./format.js";
import { Query } from "./query.js";
import { Series } from "./series.js";
import { METRIC_KINDS, Stream } from "./stream.js";

const SPANS = [
  ["5 min", 300],
  ["15 min", 900],
  ["1 h", 3600],
  ["6 h", 21600],
];
const FIRST = 8; // charts until somebody picks some

export class Metrics {
  /** `picked(names)` is called when somebody has picked other metrics, `asked(query)` when somebody has asked something. */
  constructor(picked, asked) {
    this.picked = picked;
    this.query = new Query(asked);
    this.names = byId("metric-names");
    this.charts = byId("charts");
    this.search = byId("metric-search");
    this.search.addEventListener("input", () => this.paint());
    this.spans = SPANS.map(([label, seconds]) => {
      const button = el("button", { type: "button", onclick: () => this.open(this.sources, seconds) }, label);
      byId("spans").append(button);
      return [button, seconds];
    });
    this.rows = new Map();
    this.drawn = new Map();
    this.chosen = [];
    this.sources = [];
    this.seconds = 300;
    this.series = new Series(this.seconds);
    this.state = "";
    this.stream = null;
  }

  /** Shows the metrics of some sources, so many seconds back. */
  open(sources, seconds = this.seconds) {
    this.close();
    Object.assign(this, { sources, seconds, series: new Series(seconds), state: "reading" });
    for (const [button, value] of this.spans) set(button, "aria-pressed", String(value === seconds));
    this.names.replaceChildren();
    this.charts.replaceChildren();
    this.rows.clear();
    this.drawn.clear();
    if (sources.length > 0) {
      const stream = new Stream(
        { sources, kinds: METRIC_KINDS, start: nanos(Date.now() - seconds * 1000) },
        {
          batch: (envelopes) => envelopes.forEach((envelope) => this.series.add(envelope)),
          gap: () => {},
          live: () => this.say("live"),
          missing: () => {},
          resumed: () => {},
          state: (name) => this.say(name),
        },
      );
      this.stream = stream;
      stream.start();
    }
    this.query.open(sources, seconds);
    this.paint();
    this.timer = setInterval(() => this.paint(), 1000);
  }

  /** Stops reading. */
  close() {
    clearInterval(this.timer);
    this.stream?.suspend();
    this.stream = null;
    this.query.close();
  }

  /** Picks metrics by name; none picks the first few. */
  pick(names) {
    this.chosen = names;
    this.paint();
  }

  say(state) {
    this.state = state;
    this.paint();
  }

  paint() {
    if (document.hidden) return;
    this.query.paint();
    const wanted = this.search.value.trim().toLowerCase();
    const all = this.series.names();
    const visible = all.filter((name) => name.toLowerCase().includes(wanted));
    const picked = this.chosen.filter((name) => this.series.metrics.has(name));
    const shown = picked.length > 0 ? picked : visible.slice(0, FIRST);
    this.list(visible, picked);
    for (const [name, chart] of this.drawn) {
      if (!shown.includes(name)) {
        chart.element.remove();
        this.drawn.delete(name);
      }
    }
    const now = Date.now();
    shown.forEach((name, place) => {
      const chart = this.drawn.get(name) ?? new Chart(name);
      this.drawn.set(name, chart);
      if (this.charts.children[place] !== chart.element)
        this.charts.insertBefore(chart.element, this.charts.children[place] ?? null);
      chart.draw(this.series.chart(name, now));
    });
    this.nothing(shown.length === 0);
  }

  list(visible, picked) {
    for (const [name, row] of this.rows) {
      if (!visible.includes(name)) {
        row.remove();
        this.rows.delete(name);
      }
    }
    visible.forEach((name, place) => {
      let row = this.rows.get(name);
      if (!row) {
        const kind = this.series.metrics.get(name).kind;
        row = el(
          "li",
          {},
          el(
            "button",
            { type: "button", title: name, onclick: () => this.toggle(name) },
            el("span", { class: "label" }, name),
            el("span", { class: "kind" }, kind),
          ),
        );
        this.rows.set(name, row);
      }
      if (this.names.children[place] !== row) this.names.insertBefore(row, this.names.children[place] ?? null);
      set(row.firstChild, "aria-pressed", String(picked.includes(name)));
    });
  }

  toggle(name) {
    const names = this.chosen.includes(name) ? this.chosen.filter((other) => other !== name) : [...this.chosen, name];
    this.pick(names);
    this.picked(names);
  }

  nothing(empty) {
    let note = this.charts.querySelector(".empty");
    if (!empty) return void note?.remove();
    if (!note) {
      note = el("div", { class: "empty" }, el("strong"), el("span"));
      this.charts.append(note);
    }
    const [strong, hint] = note.children;
    if (this.sources.length === 0) {
      say(strong, "Choose a source");
      say(hint, "Its counters, gauges and timers are drawn here.");
    } else if (this.search.value.trim() !== "" && this.series.metrics.size > 0) {
      say(strong, "No metric has such a name");
      say(hint, "");
    } else {
      say(
        strong,
        this.state === "live" || this.state === "open"
          ? `${this.sources.join(", ")} has sent no metrics so far`
          : "Reading …",
      );
      say(hint, "A statsd client makes some:  printf 'my-app.visits:1|c' | nc -u -w1 127.0.0.1 8125");
    }
  }
}
