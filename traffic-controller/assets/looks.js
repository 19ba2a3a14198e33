// Light, dark, or as the system has it; views as tabs. A choice of colours is kept in this browser, if it lets us.

import { byId, set } from "./dom.js";
import { VIEWS } from "./permalink.js";

const KEY = "hydrant-theme";

/** Lets the button turn light and dark round; `changed()` afterwards. */
export function theme(changed) {
  const apply = (chosen) => {
    if (chosen) document.documentElement.dataset.theme = chosen;
    changed();
  };
  try {
    const kept = localStorage.getItem(KEY);
    if (kept === "light" || kept === "dark") apply(kept);
  } catch {
    // A browser that keeps nothing.
  }
  byId("theme").addEventListener("click", () => {
    const dark =
      (document.documentElement.dataset.theme ??
        (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
    apply(dark ? "light" : "dark");
    try {
      localStorage.setItem(KEY, dark ? "light" : "dark");
    } catch {
      // It lasts until the page is closed.
    }
  });
}

/** Lets tabs be clicked, and walked through by arrows; `choose(view)` with the one chosen. */
export function tabs(choose) {
  for (const [place, view] of VIEWS.entries()) {
    const tab = byId(`tab-${view}`);
    tab.addEventListener("click", () => choose(view));
    tab.addEventListener("keydown", ({ key }) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[key];
      if (step === undefined) return;
      const next = VIEWS[(place + step + VIEWS.length) % VIEWS.length];
      choose(next);
      byId(`tab-${next}`).focus();
    });
  }
}

/** Shows a view. */
export function show(view) {
  for (const name of VIEWS) {
    byId(name).hidden = name !== view;
    set(byId(`tab-${name}`), "aria-selected", String(name === view));
    byId(`tab-${name}`).tabIndex = name === view ? 0 : -1;
  }
}
