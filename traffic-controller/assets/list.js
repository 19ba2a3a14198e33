// The list of rows: of all that a store holds only those in sight are elements.
//
// What enters: a store that changes, and how far somebody scrolls. What leaves: one paint per animation frame, and word of who scrolled
// where. Rows have one height, but for the one that is open; elements are used again.

import { el } from "./dom.js";
import { day } from "./format.js";
import { detail, render } from "./row.js";

const MARGIN = 8; // rows painted beyond each edge

/** `on` has `scrolled(atBottom, top)`, `above()`, `painted()`, and what `detail` of row.js wants, each with the row. */
export class List {
  constructor(scroller, rows, store, on) {
    Object.assign(this, { scroller, rows, store, on });
    this.look = { filter: { ranges: () => [] }, sources: false, today: day(Date.now()) };
    this.following = true;
    this.open = null; // the number of the row that is open
    this.openHeight = 0;
    this.here = null;
    this.elements = new Map(); // by number of row
    this.spare = [];
    this.frame = 0;
    this.version = 0;
    this.height = 20;
    scroller.addEventListener("scroll", () => this.onScroll(), { passive: true });
    scroller.addEventListener("wheel", ({ deltaY }) => deltaY < 0 && this.pulled(), { passive: true });
    rows.addEventListener("click", (event) => this.onClick(event));
    new ResizeObserver(() => this.repaint()).observe(scroller);
    matchMedia("(width < 820px)").addEventListener("change", () => this.repaint());
  }

  /** Asks for a paint in the next frame. */
  paint() {
    if (this.frame === 0) this.frame = requestAnimationFrame(() => this.now());
  }

  /** The same, with every row made anew: it looks different. */
  repaint() {
    this.version += 1;
    this.paint();
  }

  /** Follows the newest row, or stays where it is. */
  follow(following) {
    this.following = following;
    if (following) this.close();
    this.paint();
  }

  /** Keeps what is in sight where it is when `count` rows came (or went: negative) above it. */
  shift(count) {
    if (this.following || count === 0) return;
    this.jump((this.target ?? this.scroller.scrollTop) + count * this.rowHeight());
  }

  /** Brings a row to a third of the height. */
  reveal(seq) {
    const place = this.store.placeOf(seq);
    this.jump(place * this.rowHeight() - this.scroller.clientHeight / 3);
  }

  /** Scrolls, once the rows are there. */
  jump(top) {
    this.target = Math.max(0, top);
    this.paint();
  }

  /** Numbers of the first and the last row in sight, or null. */
  sight() {
    const first = this.store.row(this.firstPlace());
    const last = this.store.row(
      Math.min(this.store.size - 1, this.firstPlace() + Math.ceil(this.scroller.clientHeight / this.rowHeight())),
    );
    return first && last ? [first.seq, last.seq] : null;
  }

  /** Rows below the edge. */
  below() {
    return Math.max(0, this.store.size - this.firstPlace() - Math.ceil(this.scroller.clientHeight / this.rowHeight()));
  }

  /** Closes the row that is open. True if one was. */
  close() {
    if (this.open === null) return false;
    this.open = null;
    this.openHeight = 0;
    this.repaint();
    return true;
  }

  rowHeight() {
    return this.height;
  }

  firstPlace() {
    const top = this.target ?? this.scroller.scrollTop;
    return Math.max(0, Math.min(this.store.size - 1, this.placeAt(top)));
  }

  placeAt(top) {
    const open = this.openPlace();
    const height = this.rowHeight();
    if (open < 0 || top < (open + 1) * height) return Math.floor(top / height);
    return Math.max(open, Math.floor((top - this.openHeight) / height));
  }

  topOf(place) {
    const open = this.openPlace();
    return place * this.rowHeight() + (open >= 0 && place > open ? this.openHeight : 0);
  }

  openPlace() {
    if (this.open === null) return -1;
    const place = this.store.placeOf(this.open);
    return this.store.row(place)?.seq === this.open ? place : -1;
  }

  now() {
    this.frame = 0;
    const { scroller, store } = this;
    this.height = innerWidth < 820 ? 40 : 20;
    const today = day(Date.now());
    if (today !== this.look.today) {
      this.look.today = today;
      this.version += 1;
    }
    const visible = scroller.clientHeight;
    if (visible === 0) return;
    const height = store.size * this.rowHeight() + (this.openPlace() >= 0 ? this.openHeight : 0);
    if (height !== this.painted) this.rows.style.setProperty("height", `${height}px`);
    this.painted = height;
    if (this.following) this.target = Math.max(0, height - visible);
    if (this.target !== undefined) {
      scroller.scrollTop = this.target;
      this.target = undefined;
    }
    this.last = scroller.scrollTop;
    const from = Math.max(0, this.placeAt(this.last) - (this.following ? 1 : MARGIN));
    const to = Math.min(store.size, this.placeAt(this.last + visible) + (this.following ? 1 : MARGIN) + 1);
    this.place(from, to);
    this.on.painted();
  }

  place(from, to) {
    const kept = new Map();
    const missing = [];
    for (let place = from; place < to; place += 1) {
      const line = this.store.row(place);
      const element = this.elements.get(line.seq);
      if (element?.version === this.version) {
        this.elements.delete(line.seq);
        kept.set(line.seq, element);
        this.move(element, place);
      } else {
        missing.push([place, line]);
      }
    }
    this.spare.push(...this.elements.values());
    for (const [place, line] of missing) {
      const element = this.spare.pop() ?? this.create();
      render(element, line, this.look);
      element.version = this.version;
      element.line = line;
      if (line.seq === this.here) element.classList.add("here");
      if (line.seq === this.open) this.expand(element, line);
      this.move(element, place);
      kept.set(line.seq, element);
    }
    for (const element of this.spare.splice(0)) element.remove();
    this.elements = kept;
  }

  create() {
    const element = el("div", { class: "row" });
    this.rows.append(element);
    return element;
  }

  move(element, place) {
    const top = this.topOf(place);
    if (element.top === top) return;
    element.top = top;
    element.style.setProperty("transform", `translateY(${top}px)`);
  }

  expand(element, line) {
    const bound = Object.fromEntries(["link", "copy", "around"].map((name) => [name, () => this.on[name](line)]));
    element.classList.add("open");
    element.append(detail(line, bound));
    const height = element.offsetHeight - this.rowHeight();
    if (Math.abs(height - this.openHeight) > 0.5) {
      this.openHeight = height;
      this.paint();
    }
  }

  onScroll() {
    const { scroller } = this;
    // A window that grows moves the rows too, and leaves them at their end.
    const fromEnd = scroller.scrollHeight - scroller.clientHeight - scroller.scrollTop;
    if (this.following && scroller.scrollTop < this.last - 2 && fromEnd > 2) this.pausedByHand();
    // What the page itself has scrolled to is no news, and no wish to follow.
    const down = this.target === undefined && scroller.scrollTop > this.last + 1;
    const atBottom = fromEnd <= this.rowHeight() / 2;
    this.on.scrolled(down && atBottom, scroller.scrollTop);
    this.paint();
  }

  // Somebody wants to see what is above.
  pulled() {
    if (this.scroller.scrollTop === 0) this.on.above();
    this.pausedByHand();
  }

  pausedByHand() {
    if (!this.following || this.scroller.scrollHeight <= this.scroller.clientHeight) return;
    this.following = false;
    this.on.scrolled(false, this.scroller.scrollTop);
  }

  onClick(event) {
    const element = event.target.closest(".row");
    if (!element?.line || event.target.closest(".detail") || String(getSelection()) !== "") return;
    if (element.line.kind === "mark") return;
    if (this.open === element.line.seq) {
      this.close();
      return;
    }
    this.open = element.line.seq;
    this.openHeight = 0;
    this.following = false;
    this.on.scrolled(false, this.scroller.scrollTop);
    this.repaint();
  }
}
