// What stands around the rows: how the stream is doing, how much came, what waits, and what to do where there is nothing.

import { byId, el, say } from "./dom.js";
import { count, short } from "./format.js";

const STATES = {
  idle: ["", "nothing is shown"],
  connecting: ["busy", "connecting"],
  history: ["busy", "reading history"],
  open: ["busy", "reading history"],
  live: ["live", "live"],
  waiting: ["away", "connection lost: trying again"],
};

const OLDER = { back: "reading back …", end: "nothing older is held", failed: "the cache does not answer" };

/** Brings it up to date. `more` is `{ place, known, rate }`; `known` sources are not the pipeline's own; null before it was asked. */
export function status(tail, list, { place, known, rate }) {
  let [style, text] = STATES[tail.state] ?? STATES.idle;
  if (tail.suspended) [style, text] = ["paused", "stopped reading: the rest waits in the cache"];
  else if (!list.following && tail.state === "live") [style, text] = ["paused", "paused"];
  if (tail.detail && tail.state === "waiting") text = `${text} (${tail.detail})`;
  const state = byId("state");
  state.className = `state ${style}`;
  say(state, text);
  say(
    byId("warning"),
    tail.missing.length > 0
      ? `without ${tail.missing.join(", ")}: cannot be asked`
      : byId("warning").textContent.startsWith("without")
        ? ""
        : byId("warning").textContent,
  );
  figures(tail, rate);

  const unseen = list.following ? 0 : tail.unseen;
  const newer = byId("newer");
  newer.hidden = list.following || !tail.active;
  say(
    newer,
    unseen > 0 ? `${tail.suspended ? "about " : ""}${count(unseen)} new line${unseen === 1 ? "" : "s"} ↓` : "newest ↓",
  );
  say(byId("pause"), list.following ? "Pause" : "Follow");
  byId("pause").setAttribute("aria-pressed", String(!list.following));

  const older = byId("older");
  older.hidden =
    !(tail.reading in OLDER) || list.following || (tail.reading !== "back" && list.scroller.scrollTop > 300);
  say(older, OLDER[tail.reading] ?? "");
  empty(tail, place, known);
}

function figures(tail, rate) {
  const element = byId("figures");
  const shown = tail.store.size === tail.store.lines.length ? "" : `${count(tail.store.size)} of `;
  element.dataset.received = tail.received;
  element.dataset.held = tail.store.lines.length;
  element.dataset.shown = tail.store.size;
  element.dataset.lost = tail.lost;
  if (!tail.active) return void element.replaceChildren();
  element.replaceChildren(
    el("span", {}, el("b", {}, short(rate)), "/s · "),
    el("span", {}, shown, el("b", {}, count(tail.store.lines.length)), " held"),
    el("span", { class: "wide" }, " · ", el("b", {}, count(tail.received)), " received"),
    tail.lost > 0 ? el("span", { class: "lost" }, ` · ${count(tail.lost)} lost`) : "",
  );
}

function onlyMarks(store) {
  if (store.size > 3) return false;
  for (let at = 0; at < store.size; at += 1) if (store.row(at).kind !== "mark") return false;
  return true;
}

// What to type, or to change, where no row shows.
function empty(tail, place, known) {
  const element = byId("empty");
  const waits = ["connecting", "history"].includes(tail.state) || tail.reading === "back" || known === null;
  const nothing = onlyMarks(tail.store) && !waits;
  element.hidden = !nothing;
  if (!nothing) return;
  let told;
  if (!tail.active && known === 0)
    told = ["Nothing has come in yet", "Make your program a source:", "some-app 2>&1 | hydrant emit my-app"];
  else if (!tail.active)
    told = ["Choose a source", "Its lines show here as they come, after those that the cache holds.", ""];
  else if (tail.store.lines.length > tail.store.size)
    told = [
      "No line passes the filter",
      `${count(tail.store.lines.length)} lines are held. Scroll up to search further back.`,
      "",
    ];
  else if (tail.everything) told = ["Waiting for the next line", "Everything is shown live, without history.", ""];
  else
    told = [
      "No lines so far",
      `What ${place.sources.join(", ")} sends shows here at once.`,
      place.sources.length === 1 && /^[\w.-]+$/.test(place.sources[0])
        ? `some-app 2>&1 | hydrant emit ${place.sources[0]}`
        : "",
    ];
  const key = told.join("\n");
  if (element.dataset.told === key) return;
  element.dataset.told = key;
  element.replaceChildren(el("strong", {}, told[0]), el("span", {}, told[1]), told[2] ? el("pre", {}, told[2]) : "");
}
