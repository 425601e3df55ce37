// Filters that stand in the address, so that a page with them can be sent to somebody.

import { h } from "./dom.js";
import { amend, here, to } from "./router.js";

const SINCE = [["", "any time"], ["15m", "15 minutes"], ["1h", "1 hour"], ["6h", "6 hours"],
  ["1d", "1 day"], ["7d", "7 days"]];

/** What the address says: one value a name, or all of them for those in `many`. */
export function asked(page, names, many = []) {
  const { query } = page.params;
  return Object.fromEntries([
    ...names.map((name) => [name, query.get(name) ?? ""]),
    ...many.map((name) => [name, query.getAll(name)]),
  ]);
}

/** Have the address of a room say this as well, beside what it says by now: a text is heeded late.
 * A page of a list begins at its first again. */
export function change(room, changed) {
  const { parts, query } = here();
  if (parts.length !== 1 || parts[0] !== room) return;
  const all = Object.fromEntries([...query.keys()].map((name) => [name, query.getAll(name)]));
  amend(to([room], { ...all, ...changed, cursor: null, focus: null }));
}

export function field(label, control, wide = false) {
  return h("label", { class: wide ? "field wide" : "field", key: label },
    h("span", null, label), control);
}

export function choice(label, value, options, onchoose) {
  const known = options.some(([one]) => one === value) ? options : [...options, [value, value]];
  return field(label, h("select", { value, onchange: (event) => onchoose(event.target.value) },
    known.map(([one, name]) => h("option", { key: one, value: one }, name))));
}

export function since(value, onchoose) {
  return choice("Since", value, SINCE, onchoose);
}

export function queueChoice(value, queues, onchoose) {
  return choice("Queue", value, [["", "all"], ...queues.map((one) => [one, one])], onchoose);
}

/** A text, heeded a moment after the last key. */
export function text(label, value, onchoose, { wide = false, ...props } = {}) {
  return field(label, h("input", {
    type: "search",
    value,
    autocomplete: "off",
    spellcheck: "false",
    oninput: (event) => {
      const { target } = event;
      clearTimeout(target.soon);
      target.soon = setTimeout(() => onchoose(target.value.trim()), 250);
    },
    ...props,
  }), wide);
}
