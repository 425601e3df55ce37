// Where a token is given.

import { get } from "./api.js";
import { h, render } from "./dom.js";
import { code } from "./parts.js";
import { keep, session } from "./session.js";

/** Ask for a token until one is good; then `done()`. `why`: what became of the one before. */
export function logIn(root, done, why = null) {
  document.title = "Log in · taskmill";
  let problem = why;
  let busy = false;
  async function take(event) {
    event.preventDefault();
    const given = event.target.elements.token.value;
    keep(given);
    busy = true;
    draw();
    try {
      session.me = await get("me");
      done();
    } catch (error) {
      if (error.status === 401) keep("");
      problem = error.message;
      busy = false;
      draw();
    }
  }
  function draw() {
    root.setAttribute("aria-busy", String(busy));
    render(root, h("form", { class: "login", onsubmit: take, key: "login" },
      h("h1", { tabindex: "-1" }, "Log in"),
      h("label", { for: "token" }, "Token"),
      h("input", { id: "token", name: "token", type: "password", required: true, autofocus: true,
        autocomplete: "off", spellcheck: "false", "aria-invalid": problem ? "true" : null,
        "aria-describedby": "token-help" }),
      problem && h("p", { class: "wrong", role: "alert" }, problem),
      h("button", { class: "button main", disabled: busy }, busy ? "Asking…" : "Log in"),
      h("p", { class: "dim", id: "token-help" },
        code("taskmill tokens create --scope operate"), " prints one, once. With ",
        code("--scope read"), " it can look and change nothing. It is kept in this tab alone.")));
  }
  draw();
  root.querySelector("#token").focus();
}
