// Schedules: what the clock enqueues, when next, and how it went so far.

import { act as request, get, path } from "../api.js";
import { h } from "../dom.js";
import { ask, perform } from "../dialogs.js";
import { count, exact, written } from "../format.js";
import { act, code, empty, flag, table, when } from "../parts.js";
import { go, taskAt, to } from "../router.js";

const TONES = { on: ["good", "succeeded"], paused: ["warn", "waiting"],
  over: ["plain", "cancelled"], broken: ["bad", "dead"] };

export const schedules = {
  title: () => "Schedules",
  every: 5000,

  load: (page) => get("schedules", {}, page.signal),

  tools: () => h("div", { class: "tools" },
    act({ scope: "operate", tone: "main", onclick: () => {
      go(to(["schedules"], { new: true }));
    } }, "New schedule")),

  view(page) {
    const { schedules: all } = page.data;
    if (!all.length) {
      return empty("No schedules",
        h("span", null, "Make one with “New schedule”, with ", code("taskmill schedules set"),
          ", or declare it beside its task with ", code("app.schedule(…)"), "."));
    }
    return table("Schedules", [["ID", "id"], ["Status"], ["Task"], ["When"], ["Next"],
      ["Last run"], ["Runs", "number"], ["Missed", "number"], ["Acts", "acts"]],
      all.map((one) => ({ key: one.id, cells: cells(page, one) })));
  },
};

function cells(page, one) {
  const [tone, picture] = TONES[one.status];
  return [
    h("a", { href: to(["schedules", one.id]) }, one.id),
    flag(tone, picture, one.status, one.broken),
    [one.task, h("div", { class: "dim" }, one.queue)],
    rhythm(one),
    one.next.length ? h("span", { title: one.next.map(exact).join("\n") }, when(one.next[0]))
      : h("span", { class: "dim" }, one.broken ?? "none"),
    one.last_task_id
      ? h("a", { href: taskAt(one.last_queue ?? one.queue, one.last_task_id),
        title: one.last_task_id }, when(one.fired_at, one.last_task_id))
      : h("span", { class: "dim" }, "none yet"),
    count(one.runs), count(one.missed + one.skipped), h("div", { class: "tools" }, acts(page, one)),
  ];
}

export function rhythm(one) {
  if (one.cron) return [code(one.cron), h("div", { class: "dim" }, one.tz)];
  return one.every_ms === null ? "–" : `every ${written(one.every_ms)}`;
}

/** What can be done with one. */
export function acts(page, one, gone = () => page.refresh()) {
  const { id, queue, status } = one;
  const may = { scope: "operate", queue };
  const isBroken = status === "broken" ? `It is broken: ${one.broken}` : null;
  const post = (word) => async () => {
    const answer = await request("POST", `${path("schedules", id)}/${word}`);
    page.refreshSoon(50);
    return answer;
  };
  return [
    act({ ...may, key: "trigger", why: isBroken, "aria-label": `Run ${id} now`,
      onclick: () => ask({
        title: "Run it now?",
        what: [h("p", null, "A task ", code(one.task), " is enqueued in queue ", code(queue),
          " at once, with the arguments of schedule ", code(id),
          ". It counts as none of its runs; the next one stays when it is.")],
        yes: "Run it now",
        tone: "main",
        run: post("trigger"),
        done: (answer) => `Enqueued as ${answer.id}.`,
      }) }, "Run now…"),
    status === "paused"
      ? act({ ...may, key: "resume", "aria-label": `Resume ${id}`,
        onclick: () => perform(post("resume"), `${id} goes on with its next time.`) }, "Resume")
      : act({ ...may, key: "pause", why: isBroken, "aria-label": `Pause ${id}`,
        onclick: () => perform(post("pause"),
          `${id} is paused: nothing is fired until it is resumed.`),
      }, "Pause"),
    act({ ...may, key: "delete", tone: "danger", "aria-label": `Delete ${id}`,
      onclick: () => ask({
        title: "Delete this schedule?",
        what: [
          h("p", null, "Schedule ", code(id), " is removed, with what is known of its runs. ",
            "Tasks that it enqueued go on."),
          one.declared_by && h("p", null, "App ", code(one.declared_by),
            " declares it: it comes back when that starts anew. To stop it for long, pause it."),
        ],
        yes: "Delete the schedule",
        run: () => request("DELETE", path("schedules", id)).then(gone),
        done: `${id} is deleted.`,
      }) }, "Delete…"),
  ];
}
