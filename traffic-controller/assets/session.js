// Logging in and out. A token is typed, sent once in a header and forgotten: the browser's cookie is what stays.

import { Unauthorized, logIn, logOut } from "./api.js";
import { byId, say } from "./dom.js";

const KEY = "hydrant-session"; // that there is one: what it is stays out of reach of scripts

/** `changed()` is called when somebody has logged in or out. */
export function session(changed) {
  const [dialog, form, token, problem, button] = ["login", "login-form", "token", "login-error", "logout"].map(byId);
  const remember = (open) => {
    button.hidden = !open;
    try {
      if (open) localStorage.setItem(KEY, "1");
      else localStorage.removeItem(KEY);
    } catch {
      // A browser that keeps nothing: the button is there until the page is closed.
    }
  };
  try {
    button.hidden = localStorage.getItem(KEY) === null;
  } catch {
    // As above.
  }
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const typed = token.value.trim();
    token.value = "";
    try {
      await logIn(typed);
      problem.hidden = true;
      remember(true);
      dialog.close();
      changed();
    } catch (error) {
      say(
        problem,
        error instanceof Unauthorized
          ? "This token is not known, or has expired."
          : `It cannot be checked now: ${error.message}`,
      );
      problem.hidden = false;
      token.focus();
    }
  });
  // There is nothing to see behind it.
  dialog.addEventListener("cancel", (event) => event.preventDefault());
  button.addEventListener("click", async () => {
    try {
      await logOut();
    } finally {
      remember(false);
      changed();
    }
  });
  return {
    /** Asks for a token. */
    ask() {
      if (dialog.open) return;
      dialog.showModal();
      token.focus();
    },
  };
}
