// Whether what is shown is how things stand: live, behind or offline, and as of when.

import { onAnswer } from "./api.js";
import { now } from "./format.js";

// A projection at work is a second or two behind at the most.
const BEHIND_MS = 10_000;

const known = { stream: "connecting", asOf: null, away: false, behind: null };
let told = () => {};

onAnswer(({ problem, asOf }) => {
  if (problem) {
    known.away = problem.status === 0 || problem.status === 502 || problem.status === 504;
    known.behind = problem.status === 503 ? problem.message : known.behind;
  } else {
    known.away = false;
    if (asOf) {
      known.behind = null;
      if (!known.asOf || Date.parse(asOf) > Date.parse(known.asOf)) known.asOf = asOf;
    }
  }
  told();
});

export function onChange(listener) {
  told = listener;
}

export function sayStream(state) {
  known.stream = state;
  told();
}

/** {state, why, asOf} */
export function liveness() {
  const { asOf } = known;
  if (known.away) {
    return { state: "offline", why: "The console does not answer; trying again.", asOf };
  }
  if (known.behind) return { state: "behind", why: known.behind, asOf };
  if (known.stream === "lost") {
    return { state: "offline", why: "The stream of changes broke off; trying again.", asOf };
  }
  if (asOf && now() - Date.parse(asOf) > BEHIND_MS) {
    return { state: "behind", why: "The store has not read all of Kafka yet.", asOf };
  }
  if (!asOf || known.stream !== "open") {
    return { state: "connecting", why: "Asking the console.", asOf };
  }
  return { state: "live", why: "What is shown is complete up to this time.", asOf };
}
