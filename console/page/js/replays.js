// Replays: what one would put back, asked for and followed until it is done.

import { act as request, get, path } from "./api.js";
import { show } from "./dialogs.js";
import { h } from "./dom.js";
import { count, plural } from "./format.js";
import { notice } from "./notices.js";
import { code, flag, when } from "./parts.js";

const LOOK_MS = 1000;
const ALL_MS = 30_000;
const SHOWN = 4;
const TONES = { running: "busy", done: "good", aborted: "warn", interrupted: "warn",
  failed: "bad" };
const PICTURES = { running: "running", done: "succeeded", aborted: "cancelled",
  interrupted: "waiting", failed: "dead" };

/** The replays of these queues: all of them now and then, one that runs at each look. */
export async function follow(page, queues) {
  const { own } = page;
  const asked = queues.join(" ");
  const isOld = own.replaysOf !== asked || performance.now() - own.replaysAt > ALL_MS;
  if (isOld) {
    const lists = await Promise.all(queues.map((queue) =>
      get("dlq/replays", { queue }, page.signal)));
    Object.assign(own, { replaysOf: asked, replaysAt: performance.now() });
    return lists.flatMap((one) => one.replays)
      .sort((one, other) => other.began_at.localeCompare(one.began_at)).slice(0, SHOWN);
  }
  return own.replays;
}

/** Follow one to its end. */
async function watch(page, replay) {
  const others = (page.own.replays ?? []).filter((one) => one.id !== replay.id);
  page.own.replays = [replay, ...others].slice(0, SHOWN);
  page.update();
  if (page.isOver) return;
  if (replay.status !== "running") {
    page.refresh();
    return;
  }
  await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
  try {
    const { queue } = replay;
    watch(page, await get(path("dlq", "replays", replay.id), { queue }));
  } catch (error) {
    if (error.isPassing) watch(page, replay);
    else notice(error.message, "bad");
  }
}

/** What became of the last ones. */
export function replays(list) {
  if (!list?.length) return null;
  return h("section", { class: "replays", key: "replays" }, h("h2", null, "Replays"),
    h("ul", null, list.map((one) => h("li", { key: one.id },
      flag(TONES[one.status], PICTURES[one.status], one.status),
      one.status === "running" && h("progress", { "aria-label": `Replay ${one.id}`,
        max: one.total, value: one.total === null ? null : one.replayed }),
      h("span", null, h("b", null, count(one.replayed)),
        one.total === null ? " put back" : ` of ${count(one.total)} put back`,
        ` in ${one.queue}`),
      Object.entries(one.left).map(([why, many]) =>
        h("span", { class: "dim" }, `${count(many)} left: ${why}`)),
      one.waiting && h("span", { class: "dim" }, one.waiting),
      one.why && h("span", { class: "wrong" }, one.why),
      h("span", { class: "dim" }, when(one.began_at), ` by ${one.who}`)))));
}

/** Show what a replay of `order` would put back, and put it back when told so. */
export function askReplay(page, order) {
  const own = { preview: null, problem: null, busy: false };
  const chosen = { limit: "", rate: "", canary: "" };
  const body = () => ({
    ...Object.fromEntries(Object.entries(order).filter(([, value]) => value !== null)),
    ...Object.fromEntries(Object.entries(chosen).filter(([, value]) => value !== "")
      .map(([name, value]) => [name, Number(value)])),
  });
  const send = async (dialog, dry, then) => {
    own.busy = true;
    own.problem = null;
    dialog.update();
    try {
      then(await request("POST", "dlq/replay", {}, { ...body(), dry_run: dry }));
    } catch (error) {
      own.problem = error;
    }
    own.busy = false;
    dialog.update();
  };
  const preview = (dialog) => send(dialog, true, (answer) => {
    own.preview = answer;
  });
  const start = (dialog) => send(dialog, false, (replay) => {
    dialog.close();
    notice(`Replay ${replay.id} has begun.`);
    watch(page, replay);
  });
  const dialog = show("Replay dead letters", (one) => view(one, order, own, chosen, preview, start),
    { wide: true });
  preview(dialog);
}

function view(dialog, order, own, chosen, preview, start) {
  const many = own.preview?.would_replay ?? 0;
  const number = (label, name, hint, step = "1") => h("label", { class: "field" },
    h("span", null, label), h("input", {
      type: "number", min: step, step, name, value: chosen[name], placeholder: hint,
      onchange: (event) => {
        chosen[name] = event.target.validity.valid ? event.target.value : "";
        preview(dialog);
      },
    }));
  return [
    h("h2", null, "Replay dead letters?"),
    own.preview && h("p", { key: "what" },
      many === 0 ? "Nothing would be put back: no letter is so by now."
        : [h("b", null, plural(many, "task")), many === 1 ? " goes" : " go", " back to queue ",
          code(order.queue), many === 1 ? ", and runs" : ", and run", " again from the first "
          + "attempt, under the same ID as a new generation. The letters stay, as replayed."]),
    own.preview && many < own.preview.matched && h("p", { class: "dim" },
      `${plural(own.preview.matched, "letter")} would match without the limit.`),
    own.preview && many > 0 && h("ul", { class: "preview", key: "preview" },
      own.preview.fingerprints.slice(0, 8).map((one) => h("li", { key: one.fingerprint },
        h("b", null, count(one.letters)), " ", one.error, " ", code(one.fingerprint)))),
    !own.preview && !own.problem && h("p", { class: "dim" }, "Counting…"),
    h("div", { class: "fields", key: "fields" },
      number("At most", "limit", "all"),
      number("A second", "rate", "as fast as can be", "0.1"),
      number("Try first", "canary", "no trial")),
    h("p", { class: "dim", key: "help" }, "Those that are tried first are waited for; where more "
      + "than a fifth of them fails again, the others are left where they are."),
    own.problem && h("p", { class: "wrong", role: "alert" }, own.problem.message),
    h("footer", null,
      h("button", { type: "button", class: "button", autofocus: true,
        onclick: () => dialog.close() }, "Leave them"),
      h("button", { type: "button", class: "button danger", disabled: own.busy || many === 0,
        onclick: () => start(dialog) },
        own.busy ? "Asking…" : `Replay ${plural(many, "letter")}`)),
  ];
}

