// A schedule: its next times and runs, and the form that makes or changes one.

import { act as request, get, path } from "../api.js";
import { h } from "../dom.js";
import { count, exact, json, written } from "../format.js";
import { notice } from "../notices.js";
import { act, facts, flag, moment, when } from "../parts.js";
import { go, taskAt, to } from "../router.js";
import { acts } from "./schedules.js";

const EMPTY = { id: "", task: "", args: "{}", queue: "default", rhythm: "cron", cron: "", every: "",
  tz: "UTC", misfire: "fire_once", misfire_max: "10", catch_up: "1d", overlap: "skip", jitter: "0s",
  start: "", end: "", max_runs: "", timeout: "", expires: "", deadline: "", max_attempts: "" };
const NUMBERS = ["misfire_max", "max_runs", "max_attempts"];

export const schedule = {
  title: (page) => (page.params.parts[0] ? `Schedule ${page.params.parts[0]}` : "New schedule"),
  every: 5000,

  async load(page) {
    const [id] = page.params.parts;
    const [one, queues] = await Promise.all([
      id === undefined ? null : get(path("schedules", id), {}, page.signal),
      get("queues", {}, page.signal),
    ]);
    // What somebody writes is left alone, whatever the schedule has become meanwhile.
    page.own.draft ??= one ? draftOf(one) : { ...EMPTY };
    return { one, queues: queues.queues.map((each) => each.queue) };
  },

  tools(page) {
    const one = page.data?.one;
    return one && h("div", { class: "tools" }, acts(page, one, () => go("#/schedules")));
  },

  view(page) {
    const { one } = page.data;
    return h("div", { class: "columns wide-first" },
      h("section", { key: "form" },
        h("h2", null, one ? "Change it" : "What, and when"), form(page)),
      one && h("section", { key: "facts" }, h("h2", null, "How it stands"), known(one)));
  },
};

function draftOf(one) {
  const text = (value) => (value === null ? "" : String(value));
  return { ...EMPTY, id: one.id, task: text(one.task), args: json(one.args ?? {}),
    queue: text(one.queue), rhythm: one.cron ? "cron" : "every", cron: text(one.cron),
    every: written(one.every_ms), tz: one.tz ?? "UTC", misfire: one.misfire ?? EMPTY.misfire,
    misfire_max: text(one.misfire_max ?? 10), catch_up: written(one.catch_up_ms) || EMPTY.catch_up,
    overlap: one.overlap ?? EMPTY.overlap, jitter: written(one.jitter_ms) || EMPTY.jitter,
    start: text(one.start_at), end: text(one.end_at), max_runs: text(one.max_runs),
    timeout: written(one.timeout_ms), expires: written(one.expires_ms),
    deadline: written(one.deadline_ms), max_attempts: text(one.max_attempts),
    headers: one.headers };
}

function known(one) {
  return [
    facts([
      ["Status", flag({ on: "good", broken: "bad" }[one.status] ?? "plain",
        { on: "succeeded", paused: "waiting", broken: "dead" }[one.status] ?? "cancelled",
        one.status)],
      ["Why", one.broken],
      ["Declared by", one.declared_by],
      ["Last run", one.last_task_id && h("a", {
        href: taskAt(one.last_queue ?? one.queue, one.last_task_id) }, one.last_task_id)],
      ["Fired", one.fired_at && moment(one.fired_at)],
      ["Runs", count(one.runs)],
      ["Missed", count(one.missed)],
      ["Skipped", count(one.skipped)],
      ["Changed", one.updated_at && moment(one.updated_at)],
    ]),
    h("h2", null, "Next"),
    one.next.length ? h("ol", { class: "next" }, one.next.map((time) => h("li", { key: time },
      exact(time).replace(".000", ""), h("span", { class: "dim" }, " · ", when(time)))))
      : h("p", { class: "dim" },
        one.status === "paused" ? "Nothing, until it is resumed." : "None."),
  ];
}

function form(page) {
  const { draft } = page.own;
  const { one, queues } = page.data;
  const problems = page.own.problems ?? new Map();
  const declared = one?.declared_by
    ? `App ${one.declared_by} declares it: change it there, or pause it here.` : null;
  const set = (name) => (event) => {
    draft[name] = event.target.value;
    page.update();
  };
  const wrong = (name) => [...problems].find(([field]) => field.split(".")[0] === name)?.[1];
  const field = (label, name, make, hint = null) => {
    const said = wrong(name);
    const id = `schedule-${name}`;
    return h("div", { class: "field", key: name },
      h("label", { for: id }, label),
      make({ id, name, value: draft[name], readonly: name === "id" && Boolean(one),
        "aria-invalid": said ? "true" : null, "aria-describedby": `${id}-says` }, set(name)),
      h("div", { id: `${id}-says`, class: said ? "wrong" : "dim" }, said ?? hint));
  };
  const input = (props, oninput) => h("input", { autocomplete: "off", spellcheck: "false", ...props,
    oninput });
  const area = (props, oninput) => h("textarea", { rows: "5", spellcheck: "false", ...props,
    oninput });
  const choice = (...options) => (props, onchange) => h("select", { ...props, readonly: null,
    onchange }, options.map((each) => h("option", { key: each, value: each }, each)));
  const every = draft.rhythm === "every";
  return h("form", { class: "form", onsubmit: (event) => save(event, page) },
    field("ID", "id", input, one ? null : "its name, such as nightly-report"),
    field("Task", "task", input, "the name of a task that workers know"),
    field("Queue", "queue", choice(...new Set([...queues, "default", draft.queue]))),
    field("Arguments", "args", area, "a JSON object, by name"),
    h("fieldset", { key: "rhythm" }, h("legend", null, "When"),
      ["cron", "every"].map((each) => h("label", { class: "chip", key: each },
        h("input", { type: "radio", name: "rhythm", value: each, checked: draft.rhythm === each,
          onchange: set("rhythm") }), each === "cron" ? "by a cron line" : "at an interval"))),
    every ? field("Every", "every", input, "such as 5m")
      : field("Cron line", "cron", input, "minute hour day month weekday, such as 0 3 * * *"),
    field("Time zone", "tz", input, "such as Europe/Paris"),
    h("details", { key: "more", class: "more" }, h("summary", null, "More"),
      field("While the last one runs", "overlap", choice("skip", "queue", "allow")),
      field("Times that were missed", "misfire", choice("skip", "fire_once", "fire_all")),
      field("… at the most", "misfire_max", input, "of fire_all"),
      field("… that are no older than", "catch_up", input),
      field("Spread over", "jitter", input),
      field("From", "start", input, "ISO 8601, such as 2026-12-01T00:00Z"),
      field("Until", "end", input),
      field("Runs at the most", "max_runs", input),
      field("Timeout of an attempt", "timeout", input, "such as 30s"),
      field("Expires after", "expires", input, "not started so long after, it is not run"),
      field("Deadline", "deadline", input, "nothing of it runs so long after"),
      field("Attempts at the most", "max_attempts", input)),
    page.own.failed && h("p", { class: "wrong", role: "alert", key: "failed" }, page.own.failed),
    h("div", { class: "tools", key: "tools" },
      act({ scope: "operate", queue: draft.queue, why: declared, tone: "main", type: "submit",
        key: "save" }, one ? "Save" : "Make it"),
      h("a", { class: "button", href: to(["schedules"]) }, "Leave it")));
}

async function save(event, page) {
  event.preventDefault();
  const { own } = page;
  if (event.submitter?.getAttribute("aria-disabled")) return;
  own.problems = new Map();
  own.failed = null;
  const { id, ...body } = own.draft;
  const given = bodyOf(body, own.problems);
  if (!id.trim()) own.problems.set("id", "a name is needed");
  if (own.problems.size) {
    page.update();
    return;
  }
  try {
    await request("PUT", path("schedules", id.trim()), {}, given);
    notice(`${id.trim()} is saved.`);
    own.draft = null;
    go(to(["schedules"]));
  } catch (error) {
    own.problems = error.fields ?? new Map();
    own.failed = error.message;
    page.update();
  }
}

/** What is sent: an empty field says nothing. */
function bodyOf({ rhythm, args, headers, ...rest }, problems) {
  const other = rhythm === "cron" ? "every" : "cron";
  const said = Object.entries(rest).map(([name, value]) => [name, value.trim()])
    .filter(([name, value]) => value !== "" && name !== other);
  const body = Object.fromEntries(said);
  for (const name of NUMBERS) {
    if (!(name in body)) continue;
    if (/^\d+$/.test(body[name])) body[name] = Number(body[name]);
    else problems.set(name, "is no whole number");
  }
  try {
    body.args = JSON.parse(args || "{}");
  } catch (error) {
    problems.set("args", `is no JSON: ${error.message}`);
  }
  if (headers) body.headers = headers;
  return body;
}
