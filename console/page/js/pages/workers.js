// Workers: which partitions each holds, what it is at, how far behind these are.

import { get } from "../api.js";
import { h } from "../dom.js";
import { count, duration, now, plural } from "../format.js";
import { badge, code, empty, table } from "../parts.js";
import { taskAt } from "../router.js";

const MOST_RUNNING = 500;
const SHOWN = 3;

export const workers = {
  title: () => "Workers",
  every: 3000,

  async load(page) {
    const [found, queues, running] = await Promise.all([
      get("workers", {}, page.signal),
      get("queues", {}, page.signal),
      get("tasks", { status: "running", limit: MOST_RUNNING }, page.signal),
    ]);
    return { workers: found.workers, queues: queues.queues, running: running.tasks };
  },

  view({ data }) {
    const idle = data.queues.filter((one) => one.workers === 0);
    return [
      h("p", { class: "dim", key: "summary" }, plural(data.workers.length, "worker"), " on ",
        plural(data.queues.length, "queue"), ". A task is listed under its worker once it has run "
        + "for longer than a second."),
      idle.length > 0 && h("p", { class: "failure warn", key: "idle" },
        h("b", null, "Nobody works on ", idle.map((one) => one.queue).join(", ")),
        ". ", "Start one: ", code(`taskmill worker -A MODULE:APP -q ${idle[0].queue}`)),
      data.workers.length === 0
        ? idle.length === 0 && empty("No workers", h("span", null, "Start one: ",
          code("taskmill worker -A MODULE:APP"), ". It is shown once it has joined its group."))
        : table("Workers", [["Worker", "id"], ["Queue"], ["Host"], ["Version"],
          ["Partitions"], ["Lag", "number"], ["In flight", "wide"]],
          data.workers.map((one) => ({
            key: `${one.queue} ${one.client_id} ${one.partitions[0]}`, cells: cells(data, one),
          }))),
    ];
  },
};

function cells({ queues, running }, one) {
  const mine = running.filter((task) => task.queue === one.queue && isOf(task, one));
  const total = queues.find((queue) => queue.queue === one.queue)?.partitions;
  return [
    h("b", { title: one.client_id }, one.worker ?? one.client_id), one.queue, one.host,
    one.version ?? "–",
    [one.partitions.length ? code(ranges(one.partitions)) : h("span", { class: "dim" }, "none"),
      h("span", { class: "dim" }, ` ${one.partitions.length} of ${count(total)}`)],
    count(one.lag),
    mine.length === 0 ? h("span", { class: "dim" }, "nothing long")
      : [mine.slice(0, SHOWN).map((task) => h("div", { key: task.id }, badge("running", task.name),
        " ", h("a", { href: taskAt(task.queue, task.id) }, task.id),
        h("span", { class: "dim" }, ` ${duration(now() - Date.parse(task.started_at))}`))),
        mine.length > SHOWN && h("div", { class: "dim" }, `and ${mine.length - SHOWN} more`)],
  ];
}

/** A client that does not say its name is told by what it holds. */
function isOf(task, { worker, partitions }) {
  if (worker && task.worker) return task.worker === worker;
  return partitions.includes(task.source_partition);
}

/** "0–3 7 9–11" */
export function ranges(numbers) {
  const found = [];
  for (const one of [...numbers].sort((a, b) => a - b)) {
    const last = found.at(-1);
    if (last && one === last[1] + 1) last[1] = one;
    else found.push([one, one]);
  }
  return found.map(([from, to]) => (from === to ? `${from}` : `${from}–${to}`)).join(" ");
}
