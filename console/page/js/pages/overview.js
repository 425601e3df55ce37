// All at a glance: rates, success, times, what waits; by the minute, by queue and by task.

import { get } from "../api.js";
import { chart } from "../charts.js";
import { h } from "../dom.js";
import { count, duration, percent, rate, seconds } from "../format.js";
import { badge, code, empty, flag, table, when } from "../parts.js";
import { taskAt, to } from "../router.js";

const MINUTES = 60;
const RECENT = 5; // minutes, for "now"
const FAILURES = 8;
const STATUSES = ["scheduled", "queued", "waiting", "running", "retrying", "succeeded", "dead",
  "cancelled", "expired"];
// From the ground up: what failed lies on top.
const OUTCOMES = ["succeeded", "cancelled", "expired", "retrying", "dead"];
const ENDS = ["succeeded", "dead", "cancelled", "expired"];

export const overview = {
  title: () => "Overview",
  every: 5000,
  stream: () => ({ status: ["dead", "retrying"] }),
  on: (page) => page.refreshSoon(1000),

  async load(page) {
    const failing = { status: ["dead", "retrying"], since: "1h", limit: FAILURES };
    const [all, queues, failures] = await Promise.all([
      get("overview", { minutes: MINUTES }, page.signal),
      get("queues", {}, page.signal),
      get("tasks", failing, page.signal),
    ]);
    return { ...all, live: queues.queues, failures: failures.tasks };
  },

  view(page) {
    const { data } = page;
    const total = Object.values(data.totals).reduce((sum, one) => sum + one, 0);
    return [
      tiles(data),
      totals(data.totals),
      total === 0 && empty("No task has come yet",
        h("span", null, "Enqueue one: ", code("taskmill enqueue NAME --args '{…}'"),
          ", or ", code("POST /api/v1/tasks"), "."),
        "What becomes of it is shown here within a second or two."),
      total > 0 && h("div", { class: "charts", key: "charts" }, charts(page)),
      data.queues.length > 0 && h("section", { key: "queues", class: "dense" },
        h("h2", null, "By queue"), byQueue(data)),
      data.tasks.length > 0 && h("section", { key: "tasks", class: "dense" },
        h("h2", null, "By task"), byTask(data)),
      total > 0 && h("section", { key: "failures" }, h("h2", null, "Latest failures"),
        failures(data.failures)),
    ];
  },
};

function tiles(data) {
  const recent = data.series.slice(-RECENT - 1, -1);
  const span = Math.max(recent.length * 60, 1);
  const sum = (of) => recent.reduce((all, one) => all + of(one), 0);
  const out = sum(({ outcomes }) => ENDS.reduce((all, end) => all + (outcomes[end] ?? 0), 0));
  const { all } = data;
  const lag = data.live.reduce((sofar, one) => sofar + one.lag, 0);
  const oldest = Math.max(...data.live.map((one) => one.oldest_age_ms ?? -1), -1);
  const letters = data.live.reduce((sofar, one) => sofar + one.letters, 0);
  const five = `a second, last ${RECENT} min`;
  return h("div", { class: "tiles", key: "tiles" },
    tile("In", rate(sum((one) => one.enqueued) / span), five),
    tile("Out", rate(out / span), five),
    tile("Succeeded", percent(all.success), `${count(all.failed)} dead of ${count(all.finished)}`),
    tile("Run time", seconds(all.run_p50), `p95 ${seconds(all.run_p95)}`, "p50"),
    tile("Wait", seconds(all.wait_p50), `p95 ${seconds(all.wait_p95)}`, "p50"),
    tile("Lag", count(lag), oldest < 0 ? "nothing waits" : `oldest ${duration(oldest)}`),
    tile("Dead letters", h("a", { href: "#/letters" }, count(letters)), "not replayed",
      null, letters > 0 ? "bad" : null));
}

function tile(name, value, beside, unit = null, tone = null) {
  return h("div", { class: "tile" },
    h("div", { class: "name" }, name, unit && h("span", { class: "dim" }, ` ${unit}`)),
    h("div", { class: `value ${tone ?? ""}` }, value),
    h("div", { class: "dim" }, beside));
}

function totals(all) {
  return h("ul", { class: "totals", key: "totals", "aria-label": "Tasks by status" },
    STATUSES.map((status) => h("li", { key: status },
      h("a", { href: to(["tasks"], { status }) }, badge(status),
        h("b", null, count(all[status]))))));
}

function charts(page) {
  const { series } = page.data;
  const times = series.map((one) => one.at);
  const outcome = (name, tone = name) => ({
    name, tone, values: series.map((one) => one.outcomes[name] ?? 0),
  });
  const line = (name, tone, field) => ({ name, tone, values: series.map((one) => one[field]) });
  // The minute that has only begun counts by what of it is over.
  const begun = Math.min((Date.parse(page.data.as_of) - Date.parse(times.at(-1))) / 1000, 60);
  const second = (name, tone, of) => ({ name, tone, values: series.map((one, i) =>
    (i < series.length - 1 ? of(one) / 60 : begun < 10 ? null : of(one) / begun)) });
  const ended = ({ outcomes }) => ENDS.reduce((all, end) => all + (outcomes[end] ?? 0), 0);
  return [
    chart(page, { title: "Attempts that ended, a minute", kind: "bars", times, format: count,
      series: OUTCOMES.map((one) => outcome(one)) }),
    chart(page, { title: "Tasks in and out, a second", kind: "lines", times, format: rate,
      series: [second("in", "first", (one) => one.enqueued), second("out", "second", ended)] }),
    chart(page, { title: "Run time", kind: "lines", times, format: seconds,
      series: [line("p50", "first", "run_p50"), line("p95", "second", "run_p95")] }),
    chart(page, { title: "Wait before the first start", kind: "lines", times, format: seconds,
      series: [line("p50", "first", "wait_p50"), line("p95", "second", "wait_p95")] }),
  ];
}

const MEASURED = [["Finished", "number"], ["Dead", "number"], ["A second", "number"],
  ["Succeeded", "number"], ["Run p50", "number"], ["p95", "number"], ["Wait p50", "number"],
  ["p95", "number"]];

function measured(one) {
  return [count(one.finished),
    one.failed ? h("b", { class: "bad" }, count(one.failed)) : "0", rate(one.rate),
    percent(one.success), seconds(one.run_p50), seconds(one.run_p95), seconds(one.wait_p50),
    seconds(one.wait_p95)];
}

function byQueue({ queues }) {
  return table("By queue", [["Queue"], ["Lag", "number"], ["Oldest", "number"], ...MEASURED],
    queues.map((one) => ({
      key: one.queue,
      cells: [
        [h("a", { href: to(["tasks"], { queue: one.queue }) }, one.queue), " ",
          one.paused && flag("warn", "waiting", "paused")],
        count(one.lag), duration(one.oldest_age_ms), ...measured(one),
      ],
    })));
}

function byTask({ tasks }) {
  return table("By task", [["Task"], ["Queue"], ...MEASURED],
    tasks.map((one) => ({
      key: `${one.queue} ${one.name}`,
      cells: [
        one.name ? h("a", { href: to(["tasks"], { name: one.name, queue: one.queue }) }, one.name)
          : h("span", { class: "dim" }, "cannot be read"),
        one.queue, ...measured(one),
      ],
    })));
}

function failures(tasks) {
  if (!tasks.length) return h("p", { class: "dim" }, "None of the tasks of the last hour failed.");
  return table("Latest failures", [["Task"], ["ID", "id"], ["Status"], ["Error", "wide"], ["When"]],
    tasks.map((one) => ({
      key: `${one.queue} ${one.id}`,
      cells: [one.name, h("a", { href: taskAt(one.queue, one.id) }, one.id), badge(one.status),
        one.error ? `${one.error.type}: ${one.error.message}` : "", when(one.updated_at)],
    })));
}
