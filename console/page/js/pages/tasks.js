// Tasks, newest first: filtered, searched, followed as they change.

import { get } from "../api.js";
import { h } from "../dom.js";
import { count, duration, now } from "../format.js";
import * as filters from "../filters.js";
import { badge, code, empty, table, when } from "../parts.js";
import { taskAt, to } from "../router.js";

const STATUSES = ["scheduled", "queued", "waiting", "running", "retrying", "succeeded", "dead",
  "cancelled", "expired"];
const LIMIT = 50;
// Beyond, "many" is all that anybody wants to know.
const MOST_NEW = 1000;

export const tasks = {
  title: () => "Tasks",
  every: 5000,

  begin(page) {
    page.own.isStale = true;
  },

  stream(page) {
    const { name, queue } = chosen(page);
    return { name, queue };
  },

  async load(page) {
    const { own } = page;
    const all = chosen(page);
    if (!own.isStale) {
      // Rows follow the stream; a list that was drawn anew would move under the reader's eyes.
      await get("tasks", { ...all, limit: 1 }, page.signal);
      return page.data;
    }
    const [found, known] = await Promise.all([
      get("tasks", { ...all, limit: LIMIT }, page.signal),
      own.known ?? names(page.signal),
    ]);
    Object.assign(own, { isStale: false, known, fresh: new Set() });
    return found;
  },

  on(page, changed) {
    if (!page.data) return;
    const at = page.data.tasks.findIndex((one) => isSame(one, changed));
    if (at >= 0) {
      page.data.tasks[at] = changed;
      page.update();
    } else if (matches(chosen(page), changed)) {
      if (!page.data.tasks.length) {
        page.own.isStale = true;
        page.refreshSoon(100);
      } else if (isNewer(changed, page.data.tasks[0]) && page.own.fresh.size < MOST_NEW) {
        page.own.fresh.add(`${changed.queue} ${changed.id}`);
        page.update();
      }
    }
  },

  showNew(page) {
    page.own.isStale = true;
    if (chosen(page).cursor) filters.change("tasks", {});
    else page.refresh();
  },

  view(page) {
    const all = chosen(page);
    const { tasks: rows, next } = page.data;
    return [
      bar(page, all),
      rows.length ? list(rows) : nothing(all),
      h("div", { class: "paging", key: "paging" },
        all.cursor && h("a", { class: "button", href: to(["tasks"], { ...all, cursor: null }) },
          "Newest"),
        next && h("a", { class: "button", href: to(["tasks"], { ...all, cursor: next }) }, "Older"),
        h("span", { class: "dim" }, rows.length ? `${rows.length} shown` : "")),
    ];
  },
};

function chosen(page) {
  return filters.asked(page, ["prefix", "name", "queue", "since", "parent", "cursor"], ["status"]);
}

/** Names and queues to choose from; none where they cannot be had, since all can be typed. */
async function names(signal) {
  try {
    const { queues, tasks: seen } = await get("overview", { minutes: 1440 }, signal);
    return {
      queues: queues.map((one) => one.queue),
      names: [...new Set(seen.map((one) => one.name).filter(Boolean))].sort(),
    };
  } catch (error) {
    if (signal.aborted) throw error;
    return { queues: [], names: [] };
  }
}

function isSame(one, other) {
  return one.id === other.id && one.queue === other.queue;
}

function isNewer(one, other) {
  return one.enqueued_at !== null && one.enqueued_at >= other.enqueued_at;
}

function matches({ status, prefix, parent, cursor }, task) {
  return !cursor && (!status.length || status.includes(task.status)) && task.id.startsWith(prefix)
    && (!parent || parent === task.parent_id);
}

function bar(page, all) {
  const { known, fresh } = page.own;
  const change = (changed) => filters.change("tasks", changed);
  const many = fresh.size >= MOST_NEW ? `${count(MOST_NEW)} or more` : count(fresh.size);
  return h("form", { class: "bar", key: "bar", role: "search", onsubmit: (event) =>
    event.preventDefault() },
    filters.text("ID begins with", all.prefix, (prefix) => change({ prefix }), {
      id: "search", key: "search", wide: true, placeholder: "press / to search",
      autofocus: page.params.query.has("focus"),
      ref: (node) => page.params.query.has("focus") && requestAnimationFrame(() => node.focus()),
    }),
    filters.text("Task", all.name, (name) => change({ name }), { list: "names" }),
    h("datalist", { id: "names" }, known.names.map((one) => h("option", { value: one }))),
    filters.queueChoice(all.queue, known.queues, (queue) => change({ queue })),
    filters.since(all.since, (since) => change({ since })),
    h("fieldset", { class: "chips" }, h("legend", null, "Status"),
      STATUSES.map((status) => h("label", { class: "chip", key: status },
        h("input", { type: "checkbox", checked: all.status.includes(status),
          onchange: (event) => change({ status: event.target.checked
            ? [...all.status, status] : all.status.filter((one) => one !== status) }) }),
        badge(status)))),
    all.parent && h("p", { class: "dim" }, "Enqueued by ", code(all.parent), " · ",
      h("a", { href: to(["tasks"], { ...all, parent: null, cursor: null }) }, "all tasks")),
    h("button", { type: "button", class: "button new", disabled: fresh.size === 0,
      title: "Show them (n)", onclick: () => tasks.showNew(page) },
      fresh.size ? `Show ${many} new` : "Nothing new"));
}

function list(rows) {
  return table("Tasks", [["ID", "id"], ["Task"], ["Status"], ["Queue"], ["Attempt", "number"],
    ["Enqueued"], ["Run", "number"], ["Error", "wide"]],
    rows.map((one) => ({
      key: `${one.queue} ${one.id}`,
      cells: [
        h("a", { href: taskAt(one.queue, one.id), title: one.id }, one.id),
        one.name || h("span", { class: "dim" }, "cannot be read"),
        badge(one.status), one.queue, count(one.attempt), when(one.enqueued_at), duration(run(one)),
        one.error && h("span", { title: one.error.message },
          `${one.error.type}: ${one.error.message}`),
      ],
    })));
}

function run({ started_at: from, finished_at: to, status }) {
  if (!from) return null;
  if (to) return Date.parse(to) - Date.parse(from);
  return status === "running" ? now() - Date.parse(from) : null;
}

function nothing(all) {
  const isFiltered = all.prefix || all.name || all.queue || all.since || all.parent
    || all.status.length || all.cursor;
  if (isFiltered) {
    return empty("No task is so",
      h("span", null, h("a", { href: "#/tasks" }, "Show all tasks"), ", or change the filter."),
      "The search takes the beginning of an ID, capitals as they are.");
  }
  return empty("No task has come yet",
    h("span", null, "Enqueue one: ", code("taskmill enqueue NAME --args '{…}'"), "."),
    "It is shown here as soon as Kafka has it.");
}
