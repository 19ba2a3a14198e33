// The page: puts its parts together, and keeps the place that it shows in its address.
//
// What enters: clicks, keys, the fragment of the address, overviews. What leaves: what each part is to show. Nothing here is exact or
// fast by itself; the parts are.

import { before } from "./back.js";
import { byId, el, say, set } from "./dom.js";
import { ALL_LEVELS, TYPES, compile } from "./filter.js";
import { count, shifted, short } from "./format.js";
import { keys } from "./keys.js";
import { List } from "./list.js";
import { show, tabs, theme } from "./looks.js";
import { Metrics } from "./metrics.js";
import { decode, encode } from "./permalink.js";
import { Pipeline } from "./pipeline.js";
import { Poll } from "./poll.js";
import { Rates } from "./rates.js";
import { session } from "./session.js";
import { Sources } from "./sources.js";
import { status } from "./status.js";
import { Tail } from "./tail.js";

const REFILTERED = 3000; // rows that a new filter looks at in one frame

/** Sources under which the pipeline speaks of itself. */
const OWN = new Set(["hydrant", "doppler", "reverse_log_proxy"]);

let place = decode(location.hash);
let told = null; // the newest overview
let entered = false; // whether the server has not asked who we are
const rates = new Rates();

const tail = new Tail({ changed: () => list.paint(), unauthorized: () => poll.now(), total });
const list = new List(byId("list"), byId("rows"), tail.store, {
  scrolled: (atBottom, top) => tail.scrolled(atBottom, top),
  above: () => tail.readBack(),
  painted,
  link: (line) => copy(`${location.origin}/${encode({ ...place, time: line.nanos })}`, "Link copied"),
  copy: (line) => copy(line.plain, "Text copied"),
  around: (line) => go({ ...place, query: "", levels: ALL_LEVELS, time: line.nanos }),
});
tail.list = list;
const sources = new Sources(rates, (chosen, everything) =>
  go({ ...place, sources: chosen, everything, time: "", view: place.view === "metrics" ? "metrics" : "logs" }),
);
const metrics = new Metrics(
  (names) => go({ ...place, metrics: names }),
  (promql) => go({ ...place, promql }),
);
const pipeline = new Pipeline(rates);
const asking = session(() => poll.now());
const poll = new Poll({
  overview: onOverview,
  loss: (source, envelopes) => rates.lose(source, envelopes),
  unauthorized: onUnauthorized,
  away: () => {
    say(byId("totals"), "the server does not answer");
    enter();
  },
});

// Nothing is asked of the server before it has told whether one may.
function enter() {
  if (entered) return;
  entered = true;
  apply(null);
}

function onOverview(overview) {
  told = overview;
  enter();
  rates.update(overview, performance.now());
  sources.paint(overview);
  pipeline.paint(overview);
  totals();
  align();
  list.paint();
  if (!tail.active) start();
}

// Where nobody said what to show: who has sent most of those that send now, as soon as there is one besides the pipeline's own.
function start() {
  const others = told.sources.filter(({ source_id, held }) => !OWN.has(source_id) && held !== "0");
  const recent = shifted(told.time, -10_000_000_000);
  const found = others.find(({ newest_timestamp }) => before(recent, newest_timestamp)) ?? others[0];
  if (found) go({ ...place, sources: [found.source_id] }, true);
}

function onUnauthorized() {
  poll.stop();
  told = null;
  entered = false;
  tail.reset({ sources: [], everything: false, time: "" }, false);
  metrics.close();
  list.paint();
  asking.ask();
}

function totals() {
  let rate = 0;
  let lost = 0;
  for (const source of rates.sources.values()) {
    rate += source.rate;
    lost += source.lost;
  }
  byId("totals").replaceChildren(
    `${short(rate)}/s`,
    lost > 0 ? " · " : "",
    lost > 0 ? el("span", { class: "lost" }, `${count(lost)} lost`) : "",
  );
}

// Texts of several sources begin below each other.
function align() {
  const names = place.everything ? rates.order : place.sources;
  byId("list").style.setProperty(
    "--names",
    `${Math.min(18, Math.max(4, ...names.slice(0, 500).map((name) => name.length)))}ch`,
  );
}

// What the sources in the log have sent so far.
function total() {
  let sum = 0;
  for (const source of rates.sources.values())
    if (tail.everything || tail.sources.includes(source.id)) sum += source.envelopes;
  return sum;
}

// Goes to another place. Where one was before, the browser leads back to; but not to each filter on the way.
function go(next, instead = false) {
  const left = place;
  place = next;
  const other = ["view", "sources", "everything", "time"].some((name) => String(left[name]) !== String(next[name]));
  history[other && !instead ? "pushState" : "replaceState"](null, "", `${location.pathname}${encode(place)}`);
  apply(left);
}

// Shows `place`; `left` is what was shown, or null.
function apply(left) {
  const differs = (...names) => left === null || names.some((name) => String(left[name]) !== String(place[name]));
  show(place.view);
  sources.show(place.sources, place.everything);
  say(
    byId("drawer-name"),
    place.everything
      ? "Everything"
      : place.sources.length > 1
        ? `${place.sources.length} sources`
        : (place.sources[0] ?? "Sources"),
  );
  document.title = place.everything ? "hydrant" : [...place.sources, "hydrant"].join(" · ");
  if (differs("query", "levels", "types")) refilter();
  align();
  list.look.sources = place.everything || place.sources.length > 1;
  if (differs("sources", "everything", "time") || left.types.includes("metric") !== place.types.includes("metric")) {
    list.here = null;
    drawer(false);
    const { sources, everything, time } = place;
    if (entered) tail.open({ sources, everything, time }, place.types.includes("metric"));
  }
  metrics.chosen = place.metrics;
  metrics.query.show(place.promql);
  if (place.view !== "metrics") metrics.close();
  else if (entered && (differs("sources", "view") || !metrics.stream)) metrics.open(place.sources);
  if (told && differs("view")) pipeline.paint(told);
  list.repaint();
}

let filter = compile(place);
let anchor = null; // the row that is to stay in sight under a new filter

function refilter() {
  filter = compile(place);
  set(byId("filter"), "aria-invalid", filter.error ? "true" : null);
  if (byId("filter") !== document.activeElement) byId("filter").value = place.query;
  say(byId("filter-error"), filter.error);
  byId("filter-error").hidden = filter.error === "";
  for (const button of document.querySelectorAll("#levels button"))
    set(button, "aria-pressed", String(place.levels.includes(button.level)));
  for (const button of document.querySelectorAll("#types button"))
    set(button, "aria-pressed", String(place.types.includes(button.type_)));
  list.look.filter = filter;
  list.close();
  anchor = list.following ? null : (list.sight()?.[0] ?? null);
  tail.store.setFilter(filter.everything ? null : filter);
  list.repaint();
}

// After each paint: goes on with a new filter, and with what stands around the rows.
function painted() {
  if (tail.store.unfiltered > 0) {
    const shown = tail.store.size;
    if (tail.store.refilter(REFILTERED) || tail.store.size !== shown) list.paint();
    if (tail.store.unfiltered === 0) {
      if (anchor !== null) list.jump(list.topOf(tail.store.placeOf(anchor)));
      tail.fill();
    }
  }
  if (!tail.revealed && tail.store.size > 0 && tail.reading !== "back") reveal();
  const known = told && rates.order.filter((source) => !OWN.has(source)).length;
  status(tail, list, { place, known, rate: rateOf() });
}

function rateOf() {
  let rate = 0;
  for (const source of rates.sources.values())
    if (tail.everything || tail.sources.includes(source.id)) rate += source.rate;
  return rate;
}

// The row that a link is to: the first at its time or after it; where history ends before, the last.
function reveal() {
  let found = null;
  for (let at = tail.store.size - 1; at >= 0; at -= 1) {
    const line = tail.store.row(at);
    if (line.kind === "mark") continue;
    if (before(line.nanos, tail.time)) break;
    found = line;
  }
  if (found === null && tail.state !== "live") return;
  tail.revealed = true;
  if (found === null) return;
  list.here = found.seq;
  list.reveal(found.seq);
  list.repaint();
}

async function copy(text, done) {
  try {
    await navigator.clipboard.writeText(text);
    say(byId("warning"), done);
    setTimeout(() => say(byId("warning"), ""), 3000);
  } catch {
    prompt("Copy this", text);
  }
}

function drawer(open) {
  byId("sources").classList.toggle("open", open);
  set(byId("drawer"), "aria-expanded", String(open));
}

function chips() {
  const toggled = (all, on, one) => {
    const next = on.includes(one)
      ? on.filter((other) => other !== one)
      : all.filter((other) => other === one || on.includes(other));
    return next.length === 0 ? all : next;
  };
  for (const level of ALL_LEVELS) {
    const button = el(
      "button",
      {
        type: "button",
        class: `level-${level || "none"}`,
        title: level ? `lines of level ${level}` : "lines that tell no level",
        onclick: () => go({ ...place, levels: toggled(ALL_LEVELS, place.levels, level) }),
      },
      level || "none",
    );
    button.level = level;
    byId("levels").append(button);
  }
  const titles = {
    out: "lines of stdout",
    err: "lines of stderr",
    event: "events",
    metric: "counters, gauges and timers, as lines",
  };
  for (const type of TYPES) {
    const button = el(
      "button",
      {
        type: "button",
        title: titles[type],
        onclick: () => go({ ...place, types: toggled(TYPES, place.types, type) }),
      },
      type,
    );
    button.type_ = type;
    byId("types").append(button);
  }
}

let typing = 0;
byId("filter").addEventListener("input", ({ target }) => {
  clearTimeout(typing);
  typing = setTimeout(() => go({ ...place, query: target.value }), 120);
});
byId("pause").addEventListener("click", pause);
byId("newer").addEventListener("click", newest);
byId("help-open").addEventListener("click", () => byId("help").showModal());
byId("drawer").addEventListener("click", () => drawer(!byId("sources").classList.contains("open")));
addEventListener("popstate", () => {
  const left = place;
  place = decode(location.hash);
  apply(left);
});
addEventListener("online", () => tail.stream?.hurry());
document.addEventListener("selectionchange", () => {
  const selection = getSelection();
  if (list.following && !selection.isCollapsed && byId("rows").contains(selection.anchorNode)) tail.follow(false);
});

function newest() {
  if (place.time) go({ ...place, time: "" });
  else tail.follow(true);
}

function pause() {
  if (list.following) tail.follow(false);
  else newest();
}

keys({
  filter: () => {
    go({ ...place, view: "logs" });
    byId("filter").focus();
    byId("filter").select();
  },
  move: (step) => {
    sources.list.focus();
    sources.move(step);
  },
  pick: (beside) => sources.pickCurrent(beside),
  pause,
  top: () => {
    tail.follow(false);
    list.jump(0);
    tail.readBack();
  },
  bottom: newest,
  view: (view) => go({ ...place, view }),
  escape: (field) => {
    if (field) {
      if (field.value === "") field.blur();
      field.value = "";
      field.dispatchEvent(new Event("input"));
    } else if (!list.close() && byId("sources").classList.contains("open")) drawer(false);
    else if (place.query) go({ ...place, query: "" });
  },
});
theme(() => list.repaint());
tabs((view) => go({ ...place, view }));
chips();
apply(null);
poll.now();
