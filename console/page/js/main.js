// The dashboard: from an address to its page.

import { get, onAnswer } from "./api.js";
import { render } from "./dom.js";
import * as keys from "./keys.js";
import { onChange } from "./live.js";
import { logIn } from "./login.js";
import { Page } from "./page.js";
import { tick, trouble } from "./parts.js";
import { here } from "./router.js";
import { applyScheme } from "./scheme.js";
import { keep, session, takeFromAddress } from "./session.js";
import { drawShell } from "./shell.js";
import { letter } from "./pages/letter.js";
import { letters } from "./pages/letters.js";
import { overview } from "./pages/overview.js";
import { queues } from "./pages/queues.js";
import { schedule } from "./pages/schedule.js";
import { schedules } from "./pages/schedules.js";
import { task } from "./pages/task.js";
import { tasks } from "./pages/tasks.js";
import { workers } from "./pages/workers.js";
import { unknown } from "./pages/unknown.js";

const AGAIN_MS = 3000;

const root = document.getElementById("main");
const header = document.getElementById("header");
let page = null;
let shown = null;

/** [definition, how many parts follow its name]: the first that fits. */
function find([room = "", ...rest], query) {
  const known = {
    "": [overview],
    tasks: [tasks, null, task],
    letters: [letters, null, null, letter],
    schedules: [query.has("new") ? schedule : schedules, schedule],
    workers: [workers],
    queues: [queues],
  };
  return known[room]?.[rest.length] ?? unknown;
}

function shell() {
  drawShell(header, here().parts[0] ?? "", () => leave());
}

function route() {
  if (!session.me) return;
  const { parts, query } = here();
  const definition = find(parts, query);
  const params = { parts: parts.slice(1), query };
  const path = parts.join("\n");
  shell();
  if (page?.definition === definition && shown === path) {
    page.become(params);
    return;
  }
  const isFirst = page === null;
  page?.end();
  root.replaceChildren();
  shown = path;
  page = new Page(definition, root, params);
  if (!isFirst && !query.has("focus")) {
    root.querySelector("h1").focus();
    scrollTo(0, 0);
  }
}

/** Forget the token; `why`: what the API said of it. */
function leave(why = null) {
  keep("");
  page?.end();
  page = shown = null;
  root.replaceChildren();
  shell();
  logIn(root, enter, why);
}

function enter() {
  root.replaceChildren();
  shell();
  route();
}

async function begin() {
  takeFromAddress();
  shell();
  if (!session.token) {
    leave();
    return;
  }
  try {
    session.me = await get("me");
    enter();
  } catch (error) {
    if (!error.isPassing) {
      leave(error.message);
      return;
    }
    render(root, trouble(error));
    setTimeout(begin, AGAIN_MS);
  }
}

// What follows the `#` is an address of ours: the link is followed here.
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  root.focus();
});
applyScheme();
tick();
onChange(() => session.me && shell());
onAnswer(({ problem }) => {
  if (problem?.status === 401 && session.me) leave(`You were logged out: ${problem.message}.`);
});
keys.listen(() => page);
addEventListener("hashchange", () => {
  if (location.hash.startsWith("#token=")) {
    takeFromAddress();
    begin();
    return;
  }
  route();
});
setInterval(() => session.me && shell(), 1000);
begin();
