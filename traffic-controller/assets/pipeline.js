// The picture of the pipeline: who sends, routes and reads, how much flows between them, and what is lost where.
//
// What enters: an overview and its rates. What leaves: nodes in columns, curves between them as they stand, and tables of consumers and
// drains. An address that could not be asked stands there too, by name.

import { byId, el, svg } from "./dom.js";
import { short } from "./format.js";
import { model } from "./model.js";
import { consumers, drains } from "./tables.js";

const MOST_ROLES = 1000; // addresses that are remembered

export class Pipeline {
  constructor(rates) {
    this.rates = rates;
    this.roles = new Map();
    this.flow = el("div", { class: "flow" });
    this.tables = el("div", { class: "tables" });
    byId("pipeline").append(this.flow, this.tables);
    new ResizeObserver(() => this.connect()).observe(this.flow);
  }

  /** Draws an overview. */
  paint(overview) {
    if (byId("pipeline").hidden || document.hidden) return;
    if (this.roles.size > MOST_ROLES) this.roles.clear();
    const { columns, links } = model(overview, this.rates, this.roles);
    // Nodes are made anew only when there are others: curves go on moving.
    const shape = JSON.stringify(columns.map(([, nodes]) => nodes.map(({ key }) => key)));
    if (shape !== this.shape) {
      this.shape = shape;
      this.nodes = new Map();
      this.curves = svg("svg", { "aria-hidden": "true" });
      this.edges = new Map();
      this.flow.replaceChildren(
        this.curves,
        ...columns.map(([title, nodes]) =>
          el(
            "div",
            { class: "column" },
            el("h3", {}, title),
            el("div", { class: "nodes" }, ...nodes.map((node) => this.create(node))),
          ),
        ),
      );
    }
    for (const [, nodes] of columns) for (const node of nodes) this.update(node);
    this.links = links;
    this.connect();
    this.tables.replaceChildren(...consumers(overview, this.rates), ...drains(overview, this.rates));
  }

  create(node) {
    const element = el(
      "div",
      { class: "node" },
      el("h4"),
      el("p", { class: "address" }),
      el("p"),
      el("p", { class: "bad" }),
    );
    this.nodes.set(node.key, element);
    return element;
  }

  update({ key, title, address = "", line = "", bad = "", state = "" }) {
    const element = this.nodes.get(key);
    element.className = `node ${state}`;
    [title, address, line, bad].forEach((text, place) => {
      const part = element.children[place];
      if (part.textContent !== text) part.textContent = text;
      part.title = text;
      part.hidden = text === "";
    });
  }

  // Draws the curves where the nodes are now: beside each other from node to node, below each other from column to column.
  connect() {
    if (!this.links) return;
    const own = this.flow.getBoundingClientRect();
    const columns = [...this.flow.querySelectorAll(".nodes")];
    const down =
      columns.length > 1 && columns[1].getBoundingClientRect().left === columns[0].getBoundingClientRect().left;
    const seen = new Set();
    for (const { from, to, rate, lost, shown } of down ? this.trunks(columns) : this.links) {
      const [start, end] = down ? [from, to] : [this.nodes.get(from), this.nodes.get(to)];
      if (!start || !end) continue;
      const [a, b] = [start.getBoundingClientRect(), end.getBoundingClientRect()];
      const key = down ? `down ${columns.indexOf(end)}` : `${from} ${to}`;
      seen.add(key);
      const edge = this.edges.get(key) ?? this.edge(key);
      const [x1, y1] = down ? [a.left + a.width / 2, a.bottom] : [a.right, a.top + a.height / 2];
      const [x2, y2] = down ? [b.left + b.width / 2, b.top] : [b.left, b.top + b.height / 2];
      const [sx, sy, tx, ty] = [x1 - own.left, y1 - own.top, x2 - own.left, y2 - own.top];
      const middle = (sx + tx) / 2;
      edge.path.setAttribute(
        "d",
        down ? `M${sx} ${sy}V${ty}` : `M${sx} ${sy}C${middle} ${sy} ${middle} ${ty} ${tx} ${ty}`,
      );
      edge.path.setAttribute("class", rate > 0 ? "moving" : "still");
      edge.path.setAttribute("stroke-width", (1.25 + Math.min(3.5, Math.log10(1 + (rate ?? 0)) * 0.8)).toFixed(2));
      const label = (text, string, x, y) => {
        text.textContent = string;
        text.setAttribute("x", x);
        text.setAttribute("y", y);
      };
      const [x, y] = down ? [tx, (sy + ty) / 2 + 4] : [tx - Math.min(44, (tx - sx) / 2), ty - 6];
      label(edge.rate, shown === null ? "" : `${short(shown)}/s`, down ? x + 34 : x, y);
      label(edge.lost, lost > 0.05 ? `−${short(lost)}/s` : "", down ? x + 90 : x, down ? y : y + 26);
    }
    for (const [key, edge] of this.edges) {
      if (!seen.has(key)) {
        Object.values(edge).forEach((part) => part.remove());
        this.edges.delete(key);
      }
    }
  }

  // One link from each column to the next, with the sum of theirs.
  trunks(columns) {
    const column = (key) => columns.indexOf(this.nodes.get(key)?.parentElement);
    return columns.slice(1).map((to, at) => {
      const links = this.links.filter((link) => column(link.to) === at + 1);
      const sum = (name) => links.reduce((sum, link) => sum + (link[name] ?? 0), 0);
      return {
        from: columns[at],
        to,
        rate: sum("rate"),
        lost: sum("lost"),
        shown: links.some(({ shown }) => shown !== null) ? sum("shown") : null,
      };
    });
  }

  edge(key) {
    const edge = { path: svg("path"), rate: svg("text"), lost: svg("text", { class: "bad" }) };
    this.curves.prepend(edge.path);
    this.curves.append(edge.rate, edge.lost);
    this.edges.set(key, edge);
    return edge;
  }
}
