// A place on the page as the fragment of its address. Pure.
//
// `#view=metrics&s=my-app&s=other&t=1764511200000000000&q=timeout&lv=error,warn&ty=out,err`, and of metrics `m=cpu` and `pq=rate(requests[1m])`: what is
// usual is left out. A fragment never
// reaches a server.

import { ALL_LEVELS, TYPES, USUAL_TYPES } from "./filter.js";

/** The views of the page. */
export const VIEWS = ["logs", "metrics", "pipeline", "about"];

const MOST_SOURCES = 50;
const LONGEST = 1000;
const LONGEST_PROMQL = 4096;

/** The place that a fragment tells; what it does not tell, or tells wrong, is as usual. */
export function decode(fragment) {
  const told = new URLSearchParams(fragment.replace(/^#/, ""));
  const list = (key, known, usual) => {
    const named = told
      .get(key)
      ?.split(",")
      .map((name) => (name === "none" ? "" : name));
    const found = named?.filter((name) => known.includes(name)) ?? [];
    return found.length > 0 ? known.filter((name) => found.includes(name)) : usual;
  };
  const time = told.get("t") ?? "";
  return {
    view: VIEWS.includes(told.get("view")) ? told.get("view") : "logs",
    sources: [...new Set(told.getAll("s"))].slice(0, MOST_SOURCES),
    everything: told.has("all"),
    time: /^\d{1,19}$/.test(time) ? time : "",
    query: (told.get("q") ?? "").slice(0, LONGEST),
    levels: list("lv", ALL_LEVELS, ALL_LEVELS),
    types: list("ty", TYPES, USUAL_TYPES),
    metrics: told.getAll("m").slice(0, MOST_SOURCES),
    promql: (told.get("pq") ?? "").slice(0, LONGEST_PROMQL),
  };
}

/** The fragment of a place, with its `#`; empty for where one starts. */
export function encode(place) {
  const told = new URLSearchParams();
  if (place.view !== "logs") told.append("view", place.view);
  for (const source of place.sources) told.append("s", source);
  if (place.everything) told.append("all", "");
  if (place.time) told.append("t", place.time);
  if (place.query) told.append("q", place.query);
  if (place.levels.length < ALL_LEVELS.length)
    told.append("lv", place.levels.map((level) => level || "none").join(","));
  if (place.types.join() !== USUAL_TYPES.join()) told.append("ty", place.types.join(","));
  for (const name of place.metrics ?? []) told.append("m", name);
  if (place.promql) told.append("pq", place.promql);
  const text = told.toString();
  return text === "" ? "" : `#${text}`;
}
