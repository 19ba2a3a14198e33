// Queries in PromQL over the chosen sources: a field, and below it what is answered.
//
// What enters: a query, typed or from the address; the sources and the span that the view shows. What leaves: a chart and a table of the
// values of now, asked anew every few seconds while they are in sight. One request at a time; what goes beyond a bound is not drawn, and
// says so.

import { chart, range, remembered, rows } from "./answer.js";
import { evaluate } from "./api.js";
import { Chart, colour } from "./chart.js";
import { byId, el, say, set } from "./dom.js";
import { Names } from "./names.js";
import { Offers } from "./offers.js";
import { placed, withSources } from "./promql.js";
import { STEPS } from "./series.js";

const SOONEST = 3000;
const LATEST = 15_000;
const PATIENCE = 15_000;
const MOST_SERIES = 500; // of a query whose range is asked for
const KEY = "hydrant-queries";

export class Query {
  /** `asked(text)` is called when somebody has asked something else. */
  constructor(asked) {
    Object.assign(this, {
      asked,
      text: "",
      sources: [],
      seconds: 300,
      opened: false,
      stop: null,
      timer: 0,
      range: null,
      told: null,
    });
    [this.input, this.problem, this.answer] = ["promql", "promql-error", "answer"].map(byId);
    this.chart = new Chart("", 240);
    this.table = el("tbody");
    this.note = el("p", { class: "note", role: "status" });
    this.answer.append(this.chart.element, el("div", { class: "values" }, el("table", {}, this.table)), this.note);
    const names = new Names();
    this.offers = new Offers(this.input, byId("promql-offers"), (at) => names.known(at, this.sources));
    this.past = kept();
    this.back = this.past.length; // which of the past is in the field
    this.draft = "";
    this.input.addEventListener("keydown", (event) => this.press(event));
  }

  /** Shows a query that comes from elsewhere than the field. */
  show(text) {
    if (text === this.text) return;
    this.text = text;
    this.input.value = text;
    if (this.opened) this.run();
  }

  /** Asks about other sources, or another span. */
  open(sources, seconds) {
    const same = seconds === this.seconds && sources.join("\n") === this.sources.join("\n");
    Object.assign(this, { sources, seconds, opened: true });
    if (!same || !this.stop) this.run();
  }

  /** Stops asking. */
  close() {
    this.opened = false;
    this.halt();
  }

  halt() {
    clearTimeout(this.timer);
    this.stop?.abort();
    this.stop = null;
    this.offers.close();
  }

  /** Draws what is known again, in the size that there is now. */
  paint() {
    if (!this.answer.hidden) this.chart.draw(this.told);
  }

  press(event) {
    const { key } = event;
    if (event.isComposing || event.ctrlKey || event.metaKey || event.altKey) return;
    if (this.offers.press(key)) {
      event.preventDefault();
      event.stopPropagation();
      return;
    }
    if (key === "Enter") this.enter();
    else if (key === "ArrowUp" || key === "ArrowDown") this.recall(key === "ArrowUp" ? -1 : 1);
    else return;
    event.preventDefault();
  }

  enter() {
    this.offers.close();
    this.text = this.input.value.trim();
    if (this.text !== "") keep((this.past = remembered(this.past, this.text)));
    this.back = this.past.length;
    this.asked(this.text);
    this.run();
  }

  recall(step) {
    const next = this.back + step;
    if (next < 0 || next > this.past.length) return;
    if (this.back === this.past.length) this.draft = this.input.value;
    this.back = next;
    this.input.value = this.past[next] ?? this.draft;
    this.input.setSelectionRange(this.input.value.length, this.input.value.length);
  }

  run() {
    this.halt();
    this.range = null;
    this.wrong("");
    this.answer.hidden = true;
    this.told = null;
    if (this.text === "") return;
    this.stop = new AbortController();
    this.ask(this.stop.signal);
  }

  async ask(stopped) {
    let again = SOONEST;
    if (!document.hidden) {
      try {
        await this.look(stopped);
        if (stopped.aborted) return;
        this.wrong("");
      } catch (error) {
        if (stopped.aborted) return;
        this.wrong(
          error.status === 404
            ? "A source of it does not exist, or is not yours to read."
            : placed(error.said || error.message, this.text, this.sources),
        );
        // A query that is wrong stays so.
        if (error.status === 400 || error.status === 404) return;
        again = LATEST;
      }
    }
    const { step } = range(0, this.seconds, STEPS);
    this.timer = setTimeout(() => this.ask(stopped), Math.min(LATEST, Math.max(again, step * 1000)));
  }

  // The values of now, then, when another step has come, those of the span.
  async look(stopped) {
    const signal = () => AbortSignal.any([stopped, AbortSignal.timeout(PATIENCE)]);
    const query = withSources(this.text, this.sources);
    const now = Math.floor(Date.now() / 1000);
    const values = await evaluate("query", { query, time: now }, signal());
    const times = range(now, this.seconds, STEPS);
    const many = values.data.resultType === "vector" && values.data.result.length > MOST_SERIES;
    if (!many && this.range?.times.end !== times.end) {
      const found = await evaluate("query_range", { query, ...times }, signal());
      this.range = { times, ...chart(found.data.result, times), warnings: found.warnings };
    }
    if (!stopped.aborted) this.draw(values, many);
  }

  draw(values, many) {
    this.answer.hidden = false;
    this.told = many ? null : this.range.data;
    this.chart.element.hidden = this.told === null || this.told.lines.length === 0;
    this.chart.named(this.text);
    this.chart.draw(this.told);
    const lines = new Map(
      (this.told?.lines ?? []).map(({ key }, place, all) => [key, colour("query", place, all.length)]),
    );
    const { rows: listed, left } = rows(values.data);
    this.table.replaceChildren(
      ...listed.map(({ name, key, text }) =>
        el(
          "tr",
          { title: key },
          el("td", {}, el("i", { class: lines.get(key) ?? "undrawn" })),
          el("th", { scope: "row" }, name || (key === "{}" ? "value" : key)),
          el("td", { class: "number" }, text),
        ),
      ),
    );
    const told = [];
    if (many) told.push(`${values.data.result.length} series are too many to draw: sum some up, or take topk(10, …)`);
    else if (this.range.left > 0) told.push(`${this.range.left} series more are not drawn`);
    if (left > 0) told.push(`${left} values more are not listed`);
    if (listed.length === 0) told.push(this.told?.lines.length > 0 ? "no value now" : "nothing matches");
    for (const warning of new Set([...values.warnings, ...(this.range?.warnings ?? [])]))
      told.push(`incomplete: ${warning}`);
    say(this.note, told.join("; "));
    set(this.note, "class", values.warnings.length > 0 ? "note warn" : "note");
  }

  wrong(text) {
    say(this.problem, text);
    this.problem.hidden = text === "";
    set(this.input, "aria-invalid", text === "" ? null : "true");
  }
}

// What was asked in this tab.
function kept() {
  try {
    const found = JSON.parse(sessionStorage.getItem(KEY) ?? "[]");
    return Array.isArray(found) ? found.filter((text) => typeof text === "string").slice(-50) : [];
  } catch {
    return [];
  }
}

function keep(past) {
  try {
    sessionStorage.setItem(KEY, JSON.stringify(past));
  } catch {
    // It lasts until the page is closed.
  }
}
