// Queues: what waits in each, how long already, and whether it is taken from.

import { act as request, get, path } from "../api.js";
import { h } from "../dom.js";
import { ask, perform } from "../dialogs.js";
import { count, duration, plural, rate } from "../format.js";
import { act, code, empty, flag, table, when } from "../parts.js";
import { to } from "../router.js";

export const queues = {
  title: () => "Queues",
  every: 2000,

  load: (page) => get("queues", {}, page.signal),

  view(page) {
    const { queues: all } = page.data;
    if (!all.length) {
      return empty("No queues", h("span", null, "The first task makes its queue; ",
        code("taskmill topics create -q NAME"), " makes one beforehand."));
    }
    return table("Queues", [["Queue"], ["State"], ["In/s", "number"], ["Out/s", "number"],
      ["Lag", "number"], ["Oldest", "number"],
      ["Delayed", "number"], ["Retrying", "number"], ["Dead letters", "number"],
      ["Workers", "number"], ["Partitions", "number"], ["Acts", "acts"]],
      all.map((one) => ({ key: one.queue, cells: cells(page, one) })));
  },
};

const LAG = "Not committed: what is not done, and what is done above one of its partition that is "
  + "not";

function cells(page, one) {
  const { queue } = one;
  return [
    h("a", { href: to(["tasks"], { queue }) }, queue),
    state(one), rate(one.rate_in), rate(one.rate_out),
    h("span", { title: one.lag_is_exact ? LAG : `${LAG}. At the most: transactions' markers may be `
      + "among them" }, most(one, "lag")),
    duration(one.oldest_age_ms),
    h("a", { href: to(["tasks"], { queue, status: "scheduled" }) }, most(one, "delayed")),
    h("a", { href: to(["tasks"], { queue, status: "retrying" }) }, most(one, "retrying")),
    h("a", { href: to(["letters"], { queue }) }, most(one, "letters")),
    count(one.workers), count(one.partitions), toggle(page, one),
  ];
}

/** A number, or what it is at the most. */
function most(one, name) {
  return one[`${name}_is_exact`] ? count(one[name]) : `≤ ${count(one[name])}`;
}

function state({ paused, paused_at: at, paused_by: by, workers, lag }) {
  if (paused) {
    return [flag("warn", "waiting", "paused"),
      h("div", { class: "dim" }, at && when(at), by && ` by ${by}`)];
  }
  if (workers === 0) {
    return flag(lag ? "bad" : "plain", lag ? "warning" : "queued", "no worker");
  }
  return flag("good", "running", "open");
}

function toggle(page, { queue, paused, lag }) {
  const post = (word) => async () => {
    const answer = await request("POST", path("queues", queue, word));
    page.refreshSoon(50);
    return answer;
  };
  if (paused) {
    return act({ scope: "operate", queue, key: "resume", "aria-label": `Resume ${queue}`,
      onclick: () => perform(post("resume"), `Queue ${queue} is taken from again.`) }, "Resume");
  }
  return act({ scope: "operate", queue, tone: "danger", key: "pause",
    "aria-label": `Pause ${queue}`,
    onclick: () => ask({
      title: "Pause this queue?",
      what: [
        h("p", null, "Workers start nothing more from queue ", code(queue), ", on any machine, "
          + "until it is resumed. What runs now runs to its end."),
        h("p", null, lag ? "Tasks that wait now, and those that come," : "Tasks that come",
          " are kept. Some may expire meanwhile."),
      ],
      yes: "Pause the queue",
      run: post("pause"),
      done: `Queue ${queue} is paused.`,
    }) }, "Pause…");
}
