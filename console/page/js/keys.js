// Keys: what they do, and the list of them under `?`.

import { h } from "./dom.js";
import { show } from "./dialogs.js";
import { go } from "./router.js";

const JUMPS = {
  o: ["#/", "Overview"],
  t: ["#/tasks", "Tasks"],
  d: ["#/letters", "Dead letters"],
  s: ["#/schedules", "Schedules"],
  w: ["#/workers", "Workers"],
  q: ["#/queues", "Queues"],
};
const BESIDE = [
  ["/", "Search tasks by the beginning of their ID"],
  ["j", "Next row"],
  ["k", "Row before"],
  ["Enter", "Open the row"],
  ["n", "Show what is new (Tasks)"],
  ["r", "Look again"],
  ["Esc", "Close a dialog, leave a field"],
  ["?", "This list"],
];
const SECOND_MS = 1500;

let began = 0;

/** Heed keys; `page()` is the one that is shown. */
export function listen(page) {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    if (document.querySelector("dialog[open]")) return;
    const isTyping = event.target.closest("input, textarea, select");
    if (isTyping) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    if (!page()) return;
    const isSecond = performance.now() - began < SECOND_MS;
    began = 0;
    const jump = isSecond ? JUMPS[event.key] : undefined;
    if (jump) go(jump[0]);
    if (jump || press(event, page())) event.preventDefault();
  });
}

function press(event, page) {
  switch (event.key) {
    case "g":
      began = performance.now();
      return true;
    case "/":
      search();
      return true;
    case "?":
      help();
      return true;
    case "j":
      return step(1);
    case "k":
      return step(-1);
    case "n":
      page.definition.showNew?.(page);
      return true;
    case "r":
      page.refresh();
      return true;
    default:
      return false;
  }
}

function search() {
  const field = document.getElementById("search");
  if (field) {
    field.focus();
    field.select();
    return;
  }
  go("#/tasks?focus=search");
}

/** From row to row, by the first link of each. */
function step(by) {
  const links = [...document.querySelectorAll("main tbody tr")]
    .map((row) => row.querySelector("a[href], button"))
    .filter(Boolean);
  if (!links.length) return false;
  const row = document.activeElement?.closest("main tbody tr");
  const at = links.findIndex((link) => row?.contains(link));
  const next = at < 0 ? (by > 0 ? 0 : links.length - 1) : at + by;
  const link = links[Math.min(Math.max(next, 0), links.length - 1)];
  link.focus();
  link.scrollIntoView({ block: "nearest" });
  return true;
}

export function help() {
  const line = (keys, what) =>
    h("div", null, h("dt", null, keys.map((key) => h("kbd", null, key))), h("dd", null, what));
  show("Keys", (dialog) => [
    h("h2", null, "Keys"),
    h("dl", { class: "keys" },
      Object.entries(JUMPS).map(([key, [, name]]) => line(["g", key], name)),
      BESIDE.map(([key, what]) => line([key], what))),
    h("footer", null, h("button", { type: "button", class: "button", autofocus: true,
      onclick: () => dialog.close() }, "Close")),
  ], { wide: true });
}
