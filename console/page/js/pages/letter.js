// A dead letter whole, as it lies on Kafka.

import { get, path } from "../api.js";
import { h } from "../dom.js";
import { count, json } from "../format.js";
import { act, badge, code, facts, listing, moment } from "../parts.js";
import { askReplay, replays } from "../replays.js";
import { taskAt, to } from "../router.js";

export const letter = {
  title: (page) => `Dead letter ${page.params.parts.join("/")}`,
  every: 30_000,

  load: (page) => get(path("dlq", ...page.params.parts), {}, page.signal),

  tools(page) {
    const { data } = page;
    return data && h("div", { class: "tools" },
      data.id !== null
        && h("a", { class: "button", href: taskAt(data.queue, data.id) }, "Its task"),
      act({
        scope: "operate", queue: data.queue,
        why: data.replayed ? "It was replayed already." : null,
        onclick: () => askReplay(page, { queue: data.queue, partition: data.partition,
          offsets: [data.offset, data.offset] }),
      }, "Replay…"));
  },

  view(page) {
    const { data } = page;
    return [
      h("div", { class: "summary", key: "summary" },
        data.replayed ? badge("retrying", "replayed") : badge("dead", data.reason),
        h("b", null, data.name ?? "a task that cannot be read"),
        h("span", { class: "dim" }, `queue ${data.queue}`)),
      replays(page.own.replays),
      data.error && h("div", { class: "failure bad", key: "failure" },
        h("b", null, data.error.type), h("p", null, data.error.message),
        data.error.fingerprint && h("p", { class: "dim" }, "Fingerprint ",
          code(data.error.fingerprint), " · ", h("a", { href: to(["letters"], { queue: data.queue,
            fingerprint: data.error.fingerprint }) }, "letters that failed equally"))),
      h("div", { class: "columns", key: "columns" },
        h("section", { key: "facts" }, h("h2", null, "Facts"), known(data)),
        data.undecodable !== null ? listing("Bytes", data.value_base64 ?? "", data.undecodable)
          : listing("Arguments", data.args_base64 ?? json(data.args),
            data.args_base64 && "no JSON: base64")),
      data.stack && listing("Stack", data.stack, "the innermost frames of the last failure"),
      h("section", { class: "listing", key: "headers" }, h("details", null,
        h("summary", null, `Headers (${Object.keys(data.headers).length})`),
        facts(Object.entries(data.headers).map(([name, value]) => [name, value ?? "(null)"])))),
    ];
  },
};

function known(data) {
  return facts([
    ["ID", data.id ?? "none"],
    ["Died", moment(data.died_at)],
    ["Reason", data.reason],
    ["Attempts", count(data.attempts)],
    ["First failure", data.first_failure && moment(data.first_failure)],
    ["Last failure", data.last_failure && moment(data.last_failure)],
    ["Replayed", data.replayed && (data.replayed.at ? moment(data.replayed.at) : "yes")],
    ["By replay", data.replayed?.replay && code(data.replayed.replay)],
    ["Came from", data.original_topic && `${data.original_topic}, partition `
      + `${data.original_partition}, offset ${data.original_offset}`],
    ["Left out", data.omitted],
  ]);
}
