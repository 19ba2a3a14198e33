// The rows that are held, and those of them that show. Pure.
//
// A row has a number that never changes: the next one's is one more, and rows read back from the cache get numbers below the first, so
// what is on the screen keeps its place while rows come and go at both ends. *Invariant*: never more rows than the bound that was given.

/** Rows by number, in a circle that grows as far as it has to. */
export class Deque {
  constructor() {
    this.slots = new Array(1024);
    this.head = 0;
    this.first = 0;
    this.length = 0;
  }

  /** The number after the last. */
  get end() {
    return this.first + this.length;
  }

  /** The item with a number; undefined when it is not held. */
  at(number) {
    const offset = number - this.first;
    return offset >= 0 && offset < this.length ? this.slots[(this.head + offset) & (this.slots.length - 1)] : undefined;
  }

  push(item) {
    if (this.length === this.slots.length) this.grow();
    this.slots[(this.head + this.length) & (this.slots.length - 1)] = item;
    this.length += 1;
  }

  unshift(item) {
    if (this.length === this.slots.length) this.grow();
    this.head = (this.head - 1) & (this.slots.length - 1);
    this.slots[this.head] = item;
    this.first -= 1;
    this.length += 1;
  }

  /** Gives up `count` items at the front. */
  drop(count) {
    for (let left = Math.min(count, this.length); left > 0; left -= 1) {
      this.slots[this.head] = undefined;
      this.head = (this.head + 1) & (this.slots.length - 1);
      this.first += 1;
      this.length -= 1;
    }
  }

  /** Gives up `count` items at the end. */
  cut(count) {
    for (let left = Math.min(count, this.length); left > 0; left -= 1) {
      this.length -= 1;
      this.slots[(this.head + this.length) & (this.slots.length - 1)] = undefined;
    }
  }

  grow() {
    const slots = new Array(this.slots.length * 2);
    for (let at = 0; at < this.length; at += 1) slots[at] = this.slots[(this.head + at) & (this.slots.length - 1)];
    this.slots = slots;
    this.head = 0;
  }
}

/** Rows under a filter. Rows that show have an index in `shown`, numbered like the rows themselves. */
export class Store {
  constructor() {
    this.clear();
    this.filter = null;
  }

  /** Forgets every row. */
  clear() {
    this.lines = new Deque();
    this.shown = new Deque(); // numbers of rows, ascending
    this.unfiltered = 0; // rows before number `pending` that a new filter has not seen
    this.pending = 0;
  }

  /** Takes rows in at the end. */
  append(lines) {
    for (const line of lines) {
      line.seq = this.lines.end;
      this.lines.push(line);
      if (!this.filter || this.filter.test(line)) this.shown.push(line.seq);
    }
  }

  /** Takes older rows in before the first, given oldest first; gives how many of them show. */
  prepend(lines) {
    this.refilter(Infinity); // those that show stand in their order
    const before = this.shown.length;
    for (let at = lines.length - 1; at >= 0; at -= 1) {
      const line = lines[at];
      this.lines.unshift(line);
      line.seq = this.lines.first;
      if (!this.filter || this.filter.test(line)) this.shown.unshift(line.seq);
    }
    return this.shown.length - before;
  }

  /** Gives up the oldest `count` rows; gives how many of them showed. */
  evict(count) {
    this.lines.drop(count);
    let gone = 0;
    while (this.shown.length > gone && this.shown.at(this.shown.first + gone) < this.lines.first) gone += 1;
    this.shown.drop(gone);
    return gone;
  }

  /** Rows that show. */
  get size() {
    return this.shown.length;
  }

  /** The row at a place among those that show, from 0. */
  row(place) {
    return this.lines.at(this.shown.at(this.shown.first + place));
  }

  /** The place of the first row that shows with this number or a greater one. */
  placeOf(seq) {
    let [low, high] = [0, this.shown.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.shown.at(this.shown.first + middle) < seq) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** Applies another filter, newest rows first; `refilter` has to go on while it gives true. */
  setFilter(filter) {
    this.filter = filter;
    this.shown = new Deque();
    this.pending = this.lines.end;
    this.unfiltered = this.lines.length;
  }

  /** Looks at `most` more rows with the filter. True while there are rows left. */
  refilter(most) {
    for (let left = most; left > 0 && this.unfiltered > 0; left -= 1) {
      const seq = this.pending - 1;
      const line = this.lines.at(seq);
      if (line === undefined) {
        this.unfiltered = 0;
        break;
      }
      this.pending = seq;
      this.unfiltered -= 1;
      if (!this.filter || this.filter.test(line)) this.shown.unshift(seq);
    }
    return this.unfiltered > 0;
  }
}
