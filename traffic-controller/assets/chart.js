// One chart: a few lines over time, with axes, and the values under the pointer. SVG, drawn in the size that it has.

import { el, say, svg } from "./dom.js";
import { clock, duration, value } from "./format.js";
import { hue } from "./row.js";
import { ticks } from "./series.js";

const HEIGHT = 150;
const [LEFT, RIGHT, TOP, BOTTOM] = [44, 4, 8, 18];
const NAMED = 6; // lines in a legend

export class Chart {
  constructor(name) {
    this.name = name;
    this.drawing = svg("svg", { role: "img", "aria-label": name });
    this.now = el("span", { class: "now" });
    this.legend = el("div", { class: "legend" });
    this.kind = el("span", { class: "unit" });
    this.element = el(
      "article",
      { class: "chart" },
      el("header", {}, el("h3", { title: name }, name), this.kind, this.now),
      this.drawing,
      this.legend,
    );
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

  /** Draws what Series gives for a chart. */
  draw(data) {
    this.data = data;
    const width = this.drawing.clientWidth;
    if (!data || width === 0) return;
    const lines = data.lines.filter(({ points }) => points.length > 0);
    const [low, high] = range(lines, data.kind);
    const x = (ms) => LEFT + ((ms - data.from) / (data.to - data.from)) * (width - LEFT - RIGHT);
    const y = (value) => HEIGHT - BOTTOM - ((value - low) / (high - low)) * (HEIGHT - TOP - BOTTOM);
    const parts = [];
    for (const tick of ticks(low, high, 4)) {
      parts.push(svg("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y(tick), y2: y(tick) }));
      parts.push(svg("text", { x: LEFT - 6, y: y(tick) + 3, "text-anchor": "end" }, this.amount(tick)));
    }
    parts.push(...times(data, x));
    const at =
      this.pointer === null
        ? null
        : data.from + ((this.pointer - LEFT) / (width - LEFT - RIGHT)) * (data.to - data.from);
    const told = [];
    for (const [place, { label, points }] of lines.entries()) {
      const shape = points
        .map(([ms, value]) => `${x(Math.max(ms, data.from)).toFixed(1)} ${y(value).toFixed(1)}`)
        .join("L");
      const color =
        lines.length === 1 ? "hue-0" : data.kind === "timer" ? `hue-${place % 10}` : hue(label || String(place));
      const group = svg("g", { class: color });
      if (lines.length === 1 && points.length > 1) {
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
      parts.push(svg("line", { class: "cross", x1: x(ms), x2: x(ms), y1: TOP, y2: HEIGHT - BOTTOM }));
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
          : `gauge${data.unit ? `, ${data.unit}` : ""}`,
    );
    const single = told.length === 1 || (data.kind === "timer" && told.length > 0);
    say(this.now, single ? this.amount(told[0].point[1]) : "");
    const named = told.length === 1 && told[0].label === "" ? [] : told;
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
  if (kind !== "gauge" || (low > 0 && low < 0.7 * high)) low = Math.min(0, low);
  if (high < 0) high = 0;
  const room = (high - low || Math.abs(high) || 1) * 0.08;
  return [low === 0 ? 0 : low - room, high + room];
}

function times(data, x) {
  const span = data.to - data.from;
  const steps = [15, 30, 60, 120, 300, 600, 900, 1800, 3600].map((seconds) => seconds * 1000);
  const step = steps.find((step) => span / step <= 5) ?? steps.at(-1);
  const parts = [];
  for (let ms = Math.ceil(data.from / step) * step; ms <= data.to; ms += step) {
    const at = x(ms);
    if (at > LEFT + 10)
      parts.push(
        svg("text", { x: at, y: HEIGHT - 4, "text-anchor": "middle" }, clock(ms).slice(0, step < 60_000 ? 8 : 5)),
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
