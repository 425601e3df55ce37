// A task whole: where it stands, how it came there, what went in and what came out.

import { act as request, get, path } from "../api.js";
import { h } from "../dom.js";
import { ask } from "../dialogs.js";
import { duration, json, now } from "../format.js";
import { act, badge, code, copyButton, facts, listing, moment, when } from "../parts.js";
import { taskAt, to } from "../router.js";

const ENDS = ["succeeded", "dead", "cancelled", "expired"];

export const task = {
  title: (page) => `Task ${page.params.parts[1]}`,
  heading: (page) => [h("span", { class: "dim" }, "Task "), h("span", { class: "id-whole" },
    page.params.parts[1])],
  every: 5000,

  stream(page) {
    const [queue] = page.params.parts;
    return page.data?.name ? { queue, name: page.data.name } : { queue };
  },

  on(page, changed) {
    if (changed.id === page.params.parts[1]) page.refreshSoon(100);
  },

  async load(page) {
    const [queue, id] = page.params.parts;
    return get(path("tasks", id), { queue }, page.signal);
  },

  tools(page) {
    const [, id] = page.params.parts;
    return h("div", { class: "tools" }, copyButton("The ID", id), page.data && acts(page));
  },

  view({ data }) {
    return [
      h("div", { class: "summary", key: "summary" }, badge(data.status),
        h("b", null, data.name || "a task that cannot be read"),
        h("span", { class: "dim" }, `queue ${data.queue}`)),
      data.error && failure(data),
      h("div", { class: "columns", key: "columns" },
        h("section", { key: "facts" }, h("h2", null, "Facts"), known(data)),
        h("section", { key: "timeline" }, h("h2", null, "Timeline"), timeline(data))),
      h("div", { class: "columns", key: "content" },
        content("Arguments", data.args, data.args_base64,
          "They are not kept here: they are larger than 64 KiB, or their record is gone."),
        data.status === "succeeded" && content("Result", data.result, data.result_base64,
          "It returned nothing, or its result is no longer kept.")),
      data.stack && listing("Stack", data.stack, "the innermost frames of the last failure"),
    ];
  },
};

function acts(page) {
  const { data } = page;
  const { id, queue } = data;
  const isOver = ENDS.includes(data.status);
  return [
    act({
      scope: "operate", queue, tone: "danger", key: "cancel",
      why: isOver ? `It is ${data.status} already: there is nothing to cancel.` : null,
      onclick: () => ask({
        title: "Cancel this task?",
        what: [
          h("p", null, code(id), ` (${data.name}) is ${data.status}. It ends as `,
            badge("cancelled"), ": it is not started again, and no retry of it runs."),
          data.status === "running" && h("p", null,
            "Its handler is interrupted where it can be; what it did outside stays done."),
        ],
        yes: "Cancel the task",
        run: () => request("POST", `${path("tasks", id)}/cancel`, { queue }),
        done: "Asked for. Its worker carries it out.",
      }),
    }, "Cancel…"),
    act({
      scope: "operate", queue, key: "run",
      why: isOver ? null : `It is ${data.status}: only what has ended can be run again.`,
      onclick: () => ask({
        title: "Run this task again?",
        what: [
          h("p", null, code(id), ` (${data.name}) ended as `, badge(data.status),
            `. It runs once more with the same arguments, as generation ${data.generation + 1}.`),
          h("p", null, "What its handler does outside is done once more, unless it sees to that "
            + "itself. Its dead letters count as replayed."),
        ],
        yes: "Run it again",
        tone: "main",
        run: async () => {
          const answer = await request("POST", `${path("tasks", id)}/run`, { queue });
          page.refreshSoon();
          return answer;
        },
        done: (answer) => `It runs again, as generation ${answer.generation}.`,
      }),
    }, "Run again…"),
  ];
}

function failure({ error, status }) {
  return h("div", { class: `failure ${status === "dead" ? "bad" : "warn"}`, key: "failure" },
    h("b", null, error.type), h("p", null, error.message),
    error.fingerprint && h("p", { class: "dim" }, "Fingerprint ", code(error.fingerprint), " · ",
      h("a", { href: to(["letters"], { fingerprint: error.fingerprint }) },
        "letters that failed equally")));
}

function known(data) {
  const { enqueued_at: came, started_at: from, finished_at: ended } = data;
  const since = (a, b) => (a && b ? duration(Date.parse(b) - Date.parse(a)) : null);
  const isOn = data.status === "running";
  return facts([
    ["Enqueued", moment(came)],
    ["Due", data.next_attempt_at && !ENDS.includes(data.status) && moment(data.next_attempt_at)],
    ["Started", from && moment(from)],
    ["Finished", ended && moment(ended)],
    ["Waited", data.attempt === 1 && data.generation === 0 ? since(came, from) : null],
    ["Ran", from && (ended ? since(from, ended)
      : isOn ? `${duration(now() - Date.parse(from))} so far` : null)],
    ["Attempt", data.attempt],
    ["Generation", data.generation || null],
    ["Worker", data.worker],
    ["Lock", data.lock_key && code(data.lock_key)],
    ["Enqueued by", data.parent_id
      && h("a", { href: taskAt(data.queue, data.parent_id) }, data.parent_id)],
    ["Children", h("a", { href: to(["tasks"], { parent: data.id }) }, "tasks that it enqueued")],
    ["On Kafka", data.source_offset !== null
      && `partition ${data.source_partition}, offset ${data.source_offset}`],
    ["Changed", moment(data.updated_at)],
  ]);
}

function timeline(data) {
  const steps = [...data.attempts, { ...data, isNewest: true }];
  return h("ol", { class: "timeline" },
    h("li", { key: "enqueued" }, h("span", { class: "what" }, "enqueued"), when(data.enqueued_at)),
    steps.map((one) => h("li", {
      key: `${one.generation} ${one.seq}`, class: one.isNewest ? "newest" : null,
    }, step(one))));
}

function step(one) {
  const ran = one.started_at && one.finished_at
    ? duration(Date.parse(one.finished_at) - Date.parse(one.started_at)) : null;
  const at = one.finished_at ?? one.started_at ?? one.updated_at;
  return [
    h("div", null,
      badge(one.status),
      h("span", { class: "what" }, `attempt ${one.attempt}`
        + (one.generation ? `, generation ${one.generation}` : "")),
      at && when(at),
      ran && h("span", { class: "dim" }, `ran ${ran}`),
      one.worker && h("span", { class: "dim" }, `on ${one.worker}`)),
    one.status === "retrying" && one.next_attempt_at && h("div", { class: "dim" },
      "next attempt due ", when(one.next_attempt_at)),
    one.error && h("div", { class: "said" }, `${one.error.type}: ${one.error.message}`),
  ];
}

function content(title, value, base64, none) {
  const isThere = value !== null && value !== undefined;
  if (!isThere && base64 === null) {
    return h("section", { class: "listing", key: title }, h("header", null, h("h2", null, title)),
      h("p", { class: "dim" }, none));
  }
  return listing(title, isThere ? json(value) : base64, isThere ? null : "no JSON: base64");
}
