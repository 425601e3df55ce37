// Dead letters: in groups of equal failures, or one by one; and the replays that put them back.

import { get } from "../api.js";
import { h } from "../dom.js";
import { count } from "../format.js";
import * as filters from "../filters.js";
import { act, badge, code, empty, table, when } from "../parts.js";
import { askReplay, follow, replays } from "../replays.js";
import { to } from "../router.js";

const REASONS = ["failed", "timed_out", "rejected", "expired", "undecodable", "invalid_payload",
  "invalid_result", "unknown_task", "crash_loop", "abandoned", "undecryptable", "unauthenticated"];
const LIMIT = 50;

export const letters = {
  title: () => "Dead letters",
  every: 5000,
  on: (page) => page.refreshSoon(1000),

  async load(page) {
    const all = chosen(page);
    const { cursor, one, ...filter } = all;
    const isByOne = isList(all);
    const [groups, list, queues] = await Promise.all([
      get("dlq/groups", filter, page.signal),
      isByOne ? get("dlq", { ...filter, cursor, limit: LIMIT }, page.signal) : null,
      get("queues", {}, page.signal),
    ]);
    const data = { asked: all, groups: groups.groups, list, queues: queues.queues };
    page.own.replays = await follow(page, data.queues.filter((each) =>
      !all.queue || each.queue === all.queue).map((each) => each.queue));
    return data;
  },

  tools(page) {
    const all = chosen(page);
    return h("div", { class: "either", role: "group", "aria-label": "Shown as" },
      h("a", { class: "button", "aria-current": isList(all) ? null : "true",
        href: to(["letters"], { ...all, one: "", fingerprint: "", cursor: "" }) }, "Groups"),
      h("a", { class: "button", "aria-current": isList(all) ? "true" : null,
        href: to(["letters"], { ...all, one: "true", cursor: "" }) }, "One by one"));
  },

  view(page) {
    const all = chosen(page);
    const { data } = page;
    return [
      bar(page, all),
      replays(page.own.replays),
      // By what it was loaded for: the address may be ahead of it.
      data.groups.length === 0 ? nothing(data.asked)
        : data.list ? oneByOne(page, data.asked) : inGroups(page, data.asked),
    ];
  },
};

function chosen(page) {
  return filters.asked(page, ["queue", "name", "reason", "fingerprint", "error", "since",
    "replayed", "one", "cursor"]);
}

function isList({ one, fingerprint }) {
  return Boolean(one || fingerprint);
}

function bar(page, all) {
  const change = (changed) => filters.change("letters", changed);
  const known = page.data.queues.map((one) => one.queue);
  return h("form", { class: "bar", key: "bar", role: "search",
    onsubmit: (event) => event.preventDefault() },
    filters.text("Error holds", all.error, (error) => change({ error }), { wide: true }),
    filters.text("Task", all.name, (name) => change({ name })),
    filters.queueChoice(all.queue, known, (queue) => change({ queue })),
    filters.choice("Reason", all.reason, [["", "any"], ...REASONS.map((one) => [one, one])],
      (reason) => change({ reason })),
    filters.since(all.since, (since) => change({ since })),
    filters.text("Fingerprint", all.fingerprint, (fingerprint) => change({ fingerprint })),
    h("label", { class: "chip" },
      h("input", { type: "checkbox", checked: all.replayed === "true",
        onchange: (event) => change({ replayed: event.target.checked ? "true" : "" }) }),
      "replayed ones too"));
}

function inGroups(page, all) {
  return table("Groups of equal failures", [["Error", "wide"], ["Letters", "number"], ["Task"],
    ["Reason"], ["Queue"], ["First"], ["Last"], ["Acts", "acts"]],
    page.data.groups.map((one) => ({
      key: `${one.queue} ${one.fingerprint} ${one.reason} ${one.name}`,
      cells: [
        h("a", { href: to(["letters"], { ...all, queue: one.queue, fingerprint: one.fingerprint }),
          title: one.error?.message },
          one.error?.type ? `${one.error.type}: ${one.error.message}` : one.reason),
        h("b", null, count(one.letters)), one.name ?? h("span", { class: "dim" }, "various"),
        one.reason, one.queue, when(one.first), when(one.last),
        replayButton(page, { queue: one.queue, fingerprint: [one.fingerprint],
          ...narrowed(all, one) }, "Replay…"),
      ],
    })));
}

/** What of the filter a replay of a group heeds: it puts back what is shown, and no more. */
function narrowed(all, group) {
  return {
    name: group.name ? [group.name] : all.name ? [all.name] : [],
    reason: group.reason ? [group.reason] : all.reason ? [all.reason] : [],
    since: all.since || null,
    error: all.error ? escaped(all.error) : null,
    replayed_too: all.replayed === "true",
  };
}

/** Text that is looked for, as the regular expression that a replay takes. */
function escaped(text) {
  const plain = text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
  // The list knows capitals of these letters alone; (?i) would put back what it does not show.
  return plain.replace(/[a-z]/gi, (one) => `[${one.toLowerCase()}${one.toUpperCase()}]`);
}

function replayButton(page, order, word) {
  return act({ scope: "operate", queue: order.queue, onclick: () => askReplay(page, order) }, word);
}

function oneByOne(page, all) {
  const { groups, list } = page.data;
  const queues = [...new Set(groups.map((one) => one.queue))];
  const sum = groups.reduce((sofar, one) => sofar + one.letters, 0);
  return h("section", { key: "list" },
    h("div", { class: "head" },
      h("h2", null, `${count(sum)} shown of `, all.fingerprint ? "fingerprint " : "all failures",
        all.fingerprint && code(all.fingerprint)),
      h("div", { class: "tools" }, queues.map((queue) => replayButton(page, {
        queue, fingerprint: all.fingerprint ? [all.fingerprint] : [], ...narrowed(all, {}),
      }, queues.length > 1 ? `Replay those of ${queue}…` : "Replay all of them…")))),
    table("Dead letters", [["ID", "id"], ["Task"], ["Reason"], ["Error", "wide"], ["Attempts",
      "number"], ["Died"], ["Place"], ["Replayed"]],
      list.letters.map((one) => ({
        key: `${one.queue} ${one.partition} ${one.offset}`,
        cells: [
          h("a", { href: to(["letters", one.queue, String(one.partition), String(one.offset)]) },
            one.id ?? "no ID"),
          one.name ?? h("span", { class: "dim" }, "cannot be read"), one.reason,
          one.error && h("span", { title: one.error.message },
            `${one.error.type}: ${one.error.message}`),
          count(one.attempts), when(one.died_at),
          h("span", { class: "dim" }, `${one.queue} ${one.partition}/${one.offset}`),
          one.replayed ? badge("retrying", "replayed") : h("span", { class: "dim" }, "no"),
        ],
      }))),
    h("div", { class: "paging" },
      all.cursor && h("a", { class: "button", href: to(["letters"], { ...all, cursor: "" }) },
        "Newest"),
      list.next && h("a", { class: "button",
        href: to(["letters"], { ...all, cursor: list.next }) }, "Older")));
}

function nothing(all) {
  const { cursor, one, ...filter } = all;
  if (Object.values(filter).some(Boolean)) {
    return empty("No dead letter is so",
      h("span", null, h("a", { href: "#/letters" }, "Show all of them"), ", or change the filter. "
        + "Those that were replayed are left out, unless they are asked for."));
  }
  return empty("No dead letters",
    "A task that fails its last attempt, or cannot be run at all, is kept here for 30 days, as it "
    + "was. Then it can be put back with a click, once what made it fail is mended.");
}

