// The list of sources: what each sends, and which of them are shown.
//
// What enters: rates, once a second, and clicks and keys. What leaves: a choice. Rows never change places under a pointer.

import { byId, el, say, set, svg } from "./dom.js";
import { bytes, count, short } from "./format.js";
import { HISTORY } from "./rates.js";

const MOST_ROWS = 300;
const [WIDE, HIGH] = [60, 26];

export class Sources {
  /** `choose(sources, everything)` is called with what somebody has chosen. */
  constructor(rates, choose) {
    Object.assign(this, { rates, choose });
    this.list = byId("source-list");
    this.search = byId("source-search");
    this.rows = new Map();
    this.chosen = new Set();
    this.everything = false;
    this.current = undefined;
    this.all = false;
    this.pointed = false;
    this.list.addEventListener("pointerenter", () => (this.pointed = true));
    this.list.addEventListener("pointerleave", () => (this.pointed = false));
    this.list.addEventListener("click", (event) => {
      const row = event.target.closest(".source");
      if (row) this.pick(row.source, event.ctrlKey || event.metaKey || event.shiftKey);
    });
    this.list.addEventListener("keydown", (event) => this.onKey(event));
    this.search.addEventListener("input", () => this.paint(null));
    this.search.addEventListener("keydown", (event) => {
      if (event.key === "ArrowDown" || event.key === "Enter") {
        event.preventDefault();
        if (event.key === "Enter" && this.visible().length > 0) this.pick(this.visible()[0], false);
        else this.list.focus();
      }
    });
  }

  /** Shows a choice that was made elsewhere. */
  show(sources, everything) {
    this.chosen = new Set(sources);
    this.everything = everything;
    if (everything) this.current = null;
    else if (!sources.includes(this.current)) this.current = sources[0] ?? this.current;
    this.paint(null);
  }

  /** Moves the mark by `step` rows. */
  move(step) {
    const all = [...this.top(), ...this.visible()];
    if (all.length === 0) return;
    const at = all.indexOf(this.current);
    this.current = all[Math.max(0, Math.min(all.length - 1, at + step))];
    this.paint(null);
    this.rows.get(this.current)?.scrollIntoView({ block: "nearest" });
  }

  /** Chooses a source; null is everything. `beside` adds it to the others, or takes it away. */
  pick(source, beside) {
    this.current = source;
    if (source === null) return this.choose([], true);
    const chosen = beside && !this.everything ? new Set(this.chosen) : new Set();
    if (beside && this.chosen.has(source)) chosen.delete(source);
    else chosen.add(source);
    return this.choose([...chosen], false);
  }

  /** Chooses the source with the mark, if there is one. */
  pickCurrent(beside) {
    if (this.current !== undefined) this.pick(this.current, beside);
  }

  /** Paints all rows; `overview` is what was told last, or null. */
  paint(overview) {
    if (overview) {
      this.total = Number(overview.source_count);
      // Who may not read everything is told of no stage.
      this.all = overview.stages.length > 0;
      this.rates.sort(performance.now(), this.pointed);
    }
    const visible = this.visible();
    const shown = [...this.top(), ...visible.slice(0, MOST_ROWS)];
    for (const [source, row] of this.rows) {
      if (!shown.includes(source)) {
        row.remove();
        this.rows.delete(source);
      }
    }
    shown.forEach((source, place) => {
      const row = this.rows.get(source) ?? this.create(source);
      if (this.list.children[place] !== row) this.list.insertBefore(row, this.list.children[place] ?? null);
      this.update(row, source);
    });
    const more =
      Math.max(visible.length, this.search.value ? 0 : (this.total ?? 0)) - (shown.length - this.top().length);
    say(
      byId("source-note"),
      more > 0
        ? `${count(more)} more: find them by name`
        : this.search.value && visible.length === 0
          ? "no source has such a name"
          : "",
    );
  }

  // The row of everything.
  top() {
    return this.all ? [null] : [];
  }

  visible() {
    const wanted = this.search.value.trim().toLowerCase();
    return wanted === ""
      ? this.rates.order
      : this.rates.order.filter((source) => source.toLowerCase().includes(wanted));
  }

  create(source) {
    const curve = svg("path", { class: "curve" });
    const area = svg("path", { class: "area" });
    const row = el("li", { class: source === null ? "source whole" : "source", role: "option" });
    row.parts = {
      name: el("span", { class: "name" }),
      more: el("span", { class: "more" }),
      rate: el("span", { class: "rate" }),
      curve,
      area,
    };
    row.parts.lost = el("span", { class: "lost" });
    row.parts.traffic = el("span");
    row.parts.more.append(row.parts.lost, row.parts.traffic);
    row.append(
      row.parts.name,
      row.parts.more,
      svg("svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, "aria-hidden": "true" }, area, curve),
      row.parts.rate,
      el("span", { class: "unit" }, "/s"),
    );
    row.source = source;
    row.id = `source-${source === null ? "everything" : encodeURIComponent(source)}`;
    say(row.parts.name, source ?? "Everything");
    row.parts.name.title = source ?? "what all sources send, live";
    this.rows.set(source, row);
    return row;
  }

  update(row, id) {
    const source = id === null ? this.whole() : this.rates.sources.get(id);
    const chosen = id === null ? this.everything : this.chosen.has(id);
    set(row, "aria-selected", String(chosen));
    row.classList.toggle("current", this.current === id);
    if (this.current === id) set(this.list, "aria-activedescendant", row.id);
    if (!source) return;
    row.classList.toggle("idle", source.rate === 0);
    say(row.parts.rate, short(source.rate));
    say(
      row.parts.traffic,
      source.rate === 0 && source.byteRate === 0 ? `${count(source.held)} held` : `${bytes(source.byteRate)}/s`,
    );
    say(row.parts.lost, source.lost > 0 ? `${short(source.lost)} lost · ` : "");
    const [line, fill] = sparkline(source.history);
    set(row.parts.curve, "d", line);
    set(row.parts.area, "d", fill);
    set(
      row,
      "title",
      id === null
        ? null
        : `${id}: ${count(source.envelopes)} envelopes so far, ${count(source.held)} held${source.lost > 0 ? `, ${count(source.lost)} lost` : ""}`,
    );
  }

  whole() {
    const sum = { rate: 0, byteRate: 0, lost: 0, held: 0, envelopes: 0, history: new Array(HISTORY).fill(0) };
    let longest = 0;
    for (const source of this.rates.sources.values()) {
      for (const name of ["rate", "byteRate", "lost", "held", "envelopes"]) sum[name] += source[name];
      source.history.forEach((value, at) => (sum.history[HISTORY - source.history.length + at] += value));
      longest = Math.max(longest, source.history.length);
    }
    sum.history = sum.history.slice(HISTORY - longest);
    return sum;
  }

  onKey(event) {
    const step = { ArrowDown: 1, ArrowUp: -1, Home: -Infinity, End: Infinity }[event.key];
    if (step !== undefined) this.move(step);
    else if (event.key === "Enter" || (event.key === " " && event.ctrlKey))
      this.pickCurrent(event.shiftKey || event.ctrlKey);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }
}

// The last minute, as far as it is known, up to the right edge.
function sparkline(history) {
  const top = Math.max(0, ...history);
  if (top === 0) return [`M0 ${HIGH - 1}H${WIDE}`, ""];
  const x = (at) => (((HISTORY - history.length + at) / (HISTORY - 1)) * WIDE).toFixed(1);
  const points = history.map((value, at) => `${x(at)} ${(HIGH - 1 - (value / top) * (HIGH - 3)).toFixed(1)}`);
  return [`M${points.join("L")}`, `M${x(0)} ${HIGH}L${points.join("L")}L${WIDE} ${HIGH}Z`];
}
