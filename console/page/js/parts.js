// Small parts that every page is made of.

import { h } from "./dom.js";
import { clock, exact, relative } from "./format.js";
import { whyNot } from "./session.js";
import { notice } from "./notices.js";

const ICONS = {
  scheduled: "M8 2.5a5.5 5.5 0 1 0 0 11a5.5 5.5 0 1 0 0-11M8 5v3.2l2.2 1.4",
  queued: "M8 3a5 5 0 1 0 0 10a5 5 0 1 0 0-10",
  waiting: "M5.5 3.5v9M10.5 3.5v9",
  running: "M5 3.2l7.5 4.8L5 12.8z",
  retrying: "M12.7 6.5A5 5 0 1 0 13 9M13 3v3.7H9.3",
  succeeded: "M3 8.6l3.3 3.2L13 4.6",
  dead: "M4 4l8 8M12 4l-8 8",
  cancelled: "M8 2.8a5.2 5.2 0 1 0 0 10.4a5.2 5.2 0 1 0 0-10.4M4.4 4.4l7.2 7.2",
  expired: "M4.5 2.5h7M4.5 13.5h7M5.5 2.5c0 3 5 4.5 5 5.5s-5 2.5-5 5.5M10.5 2.5c0 3-5 4.5-5 5.5",
  warning: "M8 2.5L14 13.2H2zM8 6.4v3.2M8 11.3v.4",
  mill: "M8 1.8v3M8 11.2v3M1.8 8h3M11.2 8h3M3.6 3.6l2.1 2.1M10.3 10.3l2.1 2.1M12.4 3.6l-2.1 2.1"
    + "M5.7 10.3l-2.1 2.1M8 5.2a2.8 2.8 0 1 0 0 5.6a2.8 2.8 0 1 0 0-5.6",
  sun: "M8 5.3a2.7 2.7 0 1 0 0 5.4a2.7 2.7 0 1 0 0-5.4M8 1.5v1.6M8 12.9v1.6M1.5 8h1.6M12.9 8h1.6"
    + "M3.4 3.4l1.1 1.1M11.5 11.5l1.1 1.1M12.6 3.4l-1.1 1.1M4.5 11.5l-1.1 1.1",
  moon: "M12.8 9.7A5.4 5.4 0 0 1 6.3 3.2a5.4 5.4 0 1 0 6.5 6.5",
  both: "M8 2.5a5.5 5.5 0 1 0 0 11a5.5 5.5 0 1 0 0-11M8 2.5v11M9.5 3.2v9.6M11 4v8",
  copy: "M5.5 5.5h7v7h-7zM10.5 5.5v-2h-7v7h2",
};
const GOOD = { succeeded: "good", dead: "bad", retrying: "warn", running: "busy", expired: "warn" };

export function icon(name) {
  return h("svg", { class: "icon", viewBox: "0 0 16 16", "aria-hidden": "true" },
    h("path", { d: ICONS[name] }));
}

/** A status: its picture and its word. */
export function badge(status, word = status) {
  return h("span", { class: `badge ${GOOD[status] ?? "plain"}` }, icon(status), word);
}

export function flag(tone, picture, word, title = null) {
  return h("span", { class: `badge ${tone}`, title }, icon(picture), word);
}

/** A time, as long ago; its exact UTC in the title. The text goes on by itself. */
export function when(iso, none = "–") {
  if (!iso) return h("span", { class: "dim" }, none);
  return h("time", { datetime: iso, title: exact(iso), "data-relative": true }, relative(iso));
}

/** A time of the day, and how long ago. */
export function moment(iso, none = "–") {
  if (!iso) return h("span", { class: "dim" }, none);
  const day = iso.slice(0, 10);
  return h("span", { class: "moment" },
    h("span", { class: "dim" }, `${day} `), `${clock(iso)} UTC `,
    h("span", { class: "dim" }, "· ", when(iso)));
}

/** Have the times on the page go on; the function ends that. */
export function tick() {
  const timer = setInterval(() => {
    if (document.hidden) return;
    for (const node of document.querySelectorAll("time[data-relative]")) {
      const text = relative(node.dateTime);
      if (node.firstChild && node.firstChild.nodeValue !== text) node.firstChild.nodeValue = text;
    }
  }, 1000);
  return () => clearInterval(timer);
}

/** A button for what needs a scope. Where the token lacks it, it says so instead of acting. */
export function act(props, ...children) {
  const { scope, queue = null, why = null, onclick, tone = "", ...rest } = props;
  const reason = (scope ? whyNot(scope, queue) : null) ?? why;
  return h("button", {
    type: "button",
    class: `button ${tone}`,
    ...rest,
    "aria-disabled": reason ? "true" : null,
    title: reason ?? rest.title ?? null,
    onclick: reason ? () => notice(reason, "warn") : onclick,
  }, children);
}

/** A table that scrolls in its own frame. `columns`: [name, class?]; `rows`: lists of cells. */
export function table(label, columns, rows) {
  return h("div", { class: "frame", tabindex: "0", role: "region", "aria-label": label },
    h("table", null,
      h("thead", null, h("tr", null, columns.map(([name, kind]) =>
        h("th", { scope: "col", class: kind ?? null }, name)))),
      h("tbody", null, rows.map(({ key, cells, tone }) =>
        h("tr", { key, class: tone ?? null }, cells.map((cell, i) =>
          h("td", { class: columns[i][1] ?? null, "data-name": columns[i][0] }, cell)))))));
}

/** What there would be, and what to do next. */
export function empty(title, ...next) {
  return h("div", { class: "empty" }, h("h2", null, title), next.map((one) => h("p", null, one)));
}

export function code(...text) {
  return h("code", null, text);
}

/** What went wrong, as the API tells it. */
export function trouble(problem) {
  if (!problem) return null;
  return h("div", { class: "trouble", role: "alert", key: "trouble" }, icon("warning"),
    h("div", null,
      h("strong", null, problem.title ?? "This page failed"), h("br"), problem.message,
      problem.requestId && h("span", { class: "dim" }, ` Request ${problem.requestId}.`)));
}

/** Text to be read as it is, with a way to take it along. */
export function listing(title, text, note = null) {
  return h("section", { class: "listing" },
    h("header", null, h("h2", null, title), note && h("span", { class: "dim" }, note),
      copyButton(title, text)),
    h("pre", { tabindex: "0", role: "region", "aria-label": title }, text));
}

export function copyButton(what, text) {
  return h("button", {
    type: "button",
    class: "button quiet",
    "aria-label": `Copy ${what}`,
    title: `Copy ${what}`,
    onclick: async () => {
      try {
        await navigator.clipboard.writeText(text);
        notice(`${what} copied.`);
      } catch {
        notice("The browser did not let this page copy. Select the text instead.", "warn");
      }
    },
  }, icon("copy"));
}

/** Terms and what is said of them; those without anything are left out. */
export function facts(pairs) {
  return h("dl", { class: "facts" }, pairs
    .filter(([, value]) => value || value === 0)
    .map(([term, value]) => h("div", { key: term }, h("dt", null, term), h("dd", null, value))));
}
