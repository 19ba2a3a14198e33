// One chart: a few lines over time, with axes, and the values under the pointer. SVG, drawn in the size that it has.

import { el, say, set, svg } from "./dom.js";
import { clock, duration, value } from "./format.js";
import { hue } from "./row.js";
import { ticks } from "./series.js";

const HEIGHT = 150;
const [LEFT, RIGHT, TOP, BOTTOM] = [44, 4, 8, 18];
const NAMED = 6; // lines in a legend

export class Chart {
  constructor(name, height = HEIGHT) {
    this.height = height;
    this.drawing = svg("svg", { role: "img" });
    this.title = el("h3");
    this.now = el("span", { class: "now" });
    this.legend = el("div", { class: "legend" });
    this.kind = el("span", { class: "unit" });
    this.element = el(
      "article",
      { class: "chart" },
      el("header", {}, this.title, this.kind, this.now),
      this.drawing,
      this.legend,
    );
    this.named(name);
    this.pointer = null;
    this.drawing.addEventListener("pointermove", (event) => {
      this.pointer = event.clientX - this.drawing.getBoundingClientRect().left;
      this.draw(this.data);
    });
    this.drawing.addEventListener("pointerleave", () => {
      this.pointer = null;
      this.draw(this.data);
    });
  }

  /** Gives it a name. */
  named(name) {
    say(this.title, name);
    set(this.title, "title", name);
    set(this.drawing, "aria-label", name);
  }

  /** Draws what Series gives for a chart, or an answer to a query: with a `step`, a line breaks where one is missing. */
  draw(data) {
    this.data = data;
    const { height } = this;
    const width = this.drawing.clientWidth;
    if (!data || width === 0) return;
    const lines = data.lines.filter(({ points }) => points.length > 0);
    const [low, high] = range(lines, data.kind);
    const x = (ms) => LEFT + ((ms - data.from) / (data.to - data.from)) * (width - LEFT - RIGHT);
    const y = (value) => height - BOTTOM - ((value - low) / (high - low)) * (height - TOP - BOTTOM);
    const parts = [];
    for (const tick of ticks(low, high, 4)) {
      parts.push(svg("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y(tick), y2: y(tick) }));
      parts.push(svg("text", { x: LEFT - 6, y: y(tick) + 3, "text-anchor": "end" }, this.amount(tick)));
    }
    parts.push(...times(data, x, height));
    const at =
      this.pointer === null
        ? null
        : data.from + ((this.pointer - LEFT) / (width - LEFT - RIGHT)) * (data.to - data.from);
    const told = [];
    for (const [place, { label, points }] of lines.entries()) {
      const shape = points.reduce((path, [ms, value], at) => {
        const broken = data.step && at > 0 && ms - points[at - 1][0] > data.step * 1.5;
        const pen = at === 0 ? "" : broken ? "M" : "L";
        // A step that is alone is a dot.
        const dot = data.step && pen !== "L" ? "h0" : "";
        return `${path}${pen}${x(Math.max(ms, data.from)).toFixed(1)} ${y(value).toFixed(1)}${dot}`;
      }, "");
      const color = colour(data.kind, place, lines.length, label);
      const group = svg("g", { class: color });
      if (lines.length === 1 && points.length > 1 && !data.step) {
        group.append(
          svg("path", {
            class: "fill",
            d: `M${x(points[0][0]).toFixed(1)} ${y(Math.max(low, 0))}L${shape}L${x(points.at(-1)[0]).toFixed(1)} ${y(Math.max(low, 0))}Z`,
          }),
        );
      }
      group.append(
        points.length === 1
          ? svg("circle", { class: "dot", cx: x(points[0][0]), cy: y(points[0][1]), r: 3 })
          : svg("path", { class: "series", d: `M${shape}` }),
      );
      const point = at === null ? points.at(-1) : nearest(points, at);
      if (at !== null) group.append(svg("circle", { class: "dot", cx: x(point[0]), cy: y(point[1]), r: 3.5 }));
      told.push({ label, color, point });
      parts.push(group);
    }
    if (at !== null && told.length > 0) {
      const ms = told[0].point[0];
      parts.push(svg("line", { class: "cross", x1: x(ms), x2: x(ms), y1: TOP, y2: height - BOTTOM }));
    }
    this.drawing.replaceChildren(...parts);
    this.tell(data, told, at !== null);
  }

  tell(data, told, pointed) {
    const rate = data.kind === "timer" && data.rate !== null && !pointed ? `  ${value(data.rate)}/s` : "";
    say(
      this.kind,
      data.kind === "timer"
        ? `timer${rate}`
        : data.kind === "counter"
          ? "counter, per s"
          : data.kind === "query"
            ? ""
            : `gauge${data.unit ? `, ${data.unit}` : ""}`,
    );
    const single =
      (told.length === 1 && (pointed || data.kind !== "query")) || (data.kind === "timer" && told.length > 0);
    say(this.now, single ? this.amount(told[0].point[1]) : "");
    const alone = told.length === 1 && told[0].label === "";
    // Below a query stands a table.
    const named = alone || (data.kind === "query" && !pointed) ? [] : told;
    this.legend.replaceChildren(
      pointed && told.length > 0 ? el("span", { class: "at" }, clock(told[0].point[0]).slice(0, 8)) : "",
      ...named
        .slice(0, NAMED)
        .map(({ label, color, point }) =>
          el("span", {}, el("i", { class: color }), label ? `${label}  ` : "", el("b", {}, this.amount(point[1]))),
        ),
      named.length > NAMED ? el("span", {}, `and ${named.length - NAMED} more`) : "",
    );
  }

  amount(number) {
    if (number === 0) return "0";
    return this.data.kind === "timer" || this.data.unit === "ns" ? duration(number) : value(number);
  }
}

/** The class of a line by its place among so many; where it has a name, it keeps its colour. */
export function colour(kind, place, count, label = "") {
  if (count === 1) return "hue-0";
  return kind === "timer" || kind === "query" ? `hue-${place % 10}` : hue(label || String(place));
}

// The range of an axis: from zero, unless all values are far from it.
function range(lines, kind) {
  let [low, high] = [Infinity, -Infinity];
  for (const { points } of lines) {
    for (const [, value] of points) {
      low = Math.min(low, value);
      high = Math.max(high, value);
    }
  }
  if (low > high) return [0, 1];
  if (!["gauge", "query"].includes(kind) || (low > 0 && low < 0.7 * high)) low = Math.min(0, low);
  if (high < 0) high = 0;
  const room = (high - low || Math.abs(high) || 1) * 0.08;
  return [low === 0 ? 0 : low - room, high + room];
}

function times(data, x, height) {
  const span = data.to - data.from;
  const steps = [15, 30, 60, 120, 300, 600, 900, 1800, 3600].map((seconds) => seconds * 1000);
  const step = steps.find((step) => span / step <= 5) ?? steps.at(-1);
  const parts = [];
  for (let ms = Math.ceil(data.from / step) * step; ms <= data.to; ms += step) {
    const at = x(ms);
    if (at > LEFT + 10)
      parts.push(
        svg("text", { x: at, y: height - 4, "text-anchor": "middle" }, clock(ms).slice(0, step < 60_000 ? 8 : 5)),
      );
  }
  // The last one must not reach over the edge.
  if (parts.length > 0 && data.to - Math.floor(data.to / step) * step < span * 0.04)
    parts.at(-1).setAttribute("text-anchor", "end");
  return parts;
}

function nearest(points, at) {
  let [low, high] = [0, points.length - 1];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (points[middle][0] < at) low = middle + 1;
    else high = middle;
  }
  return low > 0 && at - points[low - 1][0] < points[low][0] - at ? points[low - 1] : points[low];
}
