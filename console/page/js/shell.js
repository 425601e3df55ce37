// What stands around every page: the way to the others, whether it is live, who is logged in.

import { h, render } from "./dom.js";
import { clock, exact } from "./format.js";
import { help } from "./keys.js";
import { liveness } from "./live.js";
import { icon } from "./parts.js";
import { nextScheme, scheme } from "./scheme.js";
import { session } from "./session.js";

const PAGES = [
  ["", "Overview"],
  ["tasks", "Tasks"],
  ["letters", "Dead letters"],
  ["schedules", "Schedules"],
  ["workers", "Workers"],
  ["queues", "Queues"],
];
const SCHEMES = { auto: ["both", "as the system"], light: ["sun", "light"],
  dark: ["moon", "dark"] };
const LIVE_ICON = { live: "succeeded", behind: "expired", offline: "dead", connecting: "retrying" };
const LIVE_TONE = { live: "good", behind: "warn", offline: "bad", connecting: "plain" };

/** Draw the header; `room`: the first part of the address. */
export function drawShell(root, room, logOut) {
  const isIn = session.me !== null;
  render(root,
    h("a", { class: "brand", href: "#/" }, icon("mill"), "taskmill"),
    isIn && h("nav", { "aria-label": "Pages" }, PAGES.map(([name, title]) =>
      h("a", { href: `#/${name}`, "aria-current": room === name ? "page" : null }, title))),
    isIn ? live() : h("div", { class: "live" }),
    h("div", { class: "corner" },
      schemeButton(() => drawShell(root, room, logOut)),
      isIn && h("button", { type: "button", class: "button quiet", "aria-label": "Keys",
        title: "Keys (?)", onclick: help }, "?"),
      isIn && h("button", { type: "button", class: "button quiet", onclick: logOut,
        title: whoIsIn() }, "Log out")));
}

function live() {
  const { state, why, asOf } = liveness();
  return h("div", { class: "live", title: asOf ? `${why} As of ${exact(asOf)}.` : why },
    h("span", { class: `badge ${LIVE_TONE[state]}`, role: "status" }, icon(LIVE_ICON[state]),
      state),
    h("span", { class: "as-of" }, asOf ? `${clock(asOf)} UTC` : "––:––:–– UTC"));
}

function schemeButton(drawn) {
  const [picture, word] = SCHEMES[scheme()];
  return h("button", {
    type: "button",
    class: "button quiet",
    "aria-label": `Colours: ${word}`,
    title: `Colours: ${word}`,
    onclick: () => {
      nextScheme();
      drawn();
    },
  }, icon(picture));
}

function whoIsIn() {
  const { token, scopes, queues, expires_at: until } = session.me;
  const where = queues ? `queues ${queues.join(", ")}` : "all queues";
  return `Token ${token}: ${scopes.join(", ")}; ${where}`
    + (until ? `; until ${exact(until)}` : "");
}
