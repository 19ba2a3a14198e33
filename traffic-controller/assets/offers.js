// What may be typed next, below the field in which it is typed.
//
// What enters: keys and the caret of a field. What leaves: the text of the field, with what was chosen in it. Texts of others are only ever
// text.

import { el, set } from "./dom.js";
import { context, offers, taken } from "./promql.js";

const SOON = 120; // milliseconds of quiet before it is looked up

export class Offers {
  /** `known(context)` gives, later, the metrics, labels and values that there are. */
  constructor(input, list, known) {
    Object.assign(this, { input, list, known, found: [], chosen: -1, at: null, names: {}, turn: 0, timer: 0 });
    input.addEventListener("input", () => this.typed());
    input.addEventListener("blur", () => this.close());
    list.addEventListener("pointerdown", (event) => {
      // The field keeps the caret.
      event.preventDefault();
      const place = [...list.children].indexOf(event.target.closest("li"));
      if (place >= 0) this.take(place);
    });
  }

  /** Whether a key was one for the list. */
  press(key) {
    if (this.found.length === 0) return false;
    if (key === "ArrowDown" || key === "ArrowUp") {
      const count = this.found.length;
      const from = this.chosen < 0 && key === "ArrowUp" ? count : this.chosen;
      this.choose((from + (key === "ArrowDown" ? 1 : -1) + count) % count);
    } else if (key === "Tab") this.take(Math.max(0, this.chosen));
    else if (key === "Enter" && this.chosen >= 0) this.take(this.chosen);
    else if (key === "Escape") this.close();
    else return false;
    return true;
  }

  /** Takes the list away. */
  close() {
    clearTimeout(this.timer);
    this.turn += 1;
    this.show([], null);
  }

  // At once what is known already, so that no key takes what was offered for another text; a little later the rest.
  typed() {
    clearTimeout(this.timer);
    this.turn += 1;
    const at = context(this.input.value, this.input.selectionStart);
    if (!at) return this.show([], null);
    if (!["kind", "metric", "label"].every((name) => at[name] === this.at?.[name])) this.names = {};
    this.show(offers(at, this.names), at);
    this.timer = setTimeout(() => this.look(at, this.turn), SOON);
  }

  async look(at, turn) {
    const names = await this.known(at);
    if (turn !== this.turn || document.activeElement !== this.input) return;
    this.names = names;
    if (this.chosen < 0) this.show(offers(at, names), at);
  }

  show(found, at) {
    Object.assign(this, { found, at });
    this.list.replaceChildren(
      ...found.map(({ text, kind }, place) =>
        el(
          "li",
          { role: "option", id: `${this.list.id}-${place}`, "aria-selected": "false" },
          el("span", { class: "label" }, text),
          el("span", { class: "kind" }, kind),
        ),
      ),
    );
    this.list.hidden = found.length === 0;
    set(this.input, "aria-expanded", String(found.length > 0));
    this.choose(-1);
  }

  choose(place) {
    this.list.children[this.chosen]?.setAttribute("aria-selected", "false");
    this.chosen = place;
    const row = this.list.children[place];
    row?.setAttribute("aria-selected", "true");
    row?.scrollIntoView({ block: "nearest" });
    set(this.input, "aria-activedescendant", row ? row.id : null);
  }

  take(place) {
    const [text, caret] = taken(this.input.value, this.at, this.found[place]);
    this.input.value = text;
    this.input.setSelectionRange(caret, caret);
    this.close();
  }
}
