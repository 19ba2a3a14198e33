// The keyboard. `act` has a function for each thing that a key does.

import { byId } from "./dom.js";
import { VIEWS } from "./permalink.js";

/** Listens for keys, but for those that somebody types into a field. */
export function keys(act) {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    const { target, key } = event;
    if (target.matches("input, textarea, select")) {
      if (key === "Escape") act.escape(target);
      return;
    }
    const onButton = target.matches("button, a");
    const view = VIEWS[Number(key) - 1];
    if (key === "/") act.filter();
    else if (key === "j" || (key === "ArrowDown" && !inList(target))) act.move(1);
    else if (key === "k" || (key === "ArrowUp" && !inList(target))) act.move(-1);
    else if (key === "Enter" && !onButton) act.pick(event.shiftKey);
    else if (key === " " && !onButton) act.pause();
    else if (key === "g") act.top();
    else if (key === "G" || (key === "End" && inList(target))) act.bottom();
    else if (key === "?") byId("help").showModal();
    else if (key === "Escape") act.escape(null);
    else if (view) act.view(view);
    else return;
    event.preventDefault();
  });
}

function inList(target) {
  return target.closest(".list, .charts, .metric-names, .about, .pipeline") !== null;
}
