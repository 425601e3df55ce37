// The HTTP API: requests with the token, and what goes wrong as problem documents.

import { heed } from "./format.js";
import { session } from "./session.js";

const BASE = "api/v1";
const PATIENCE_MS = 40_000;

/** What the API refused, or that it was not reached (status 0). */
export class Problem extends Error {
  constructor(document) {
    super(document.detail || document.title);
    this.status = document.status;
    this.title = document.title;
    this.requestId = document.request_id ?? null;
    this.replay = document.replay ?? null;
    this.fields = new Map((document.errors ?? []).map((one) => [one.field, one.message]));
  }

  /** Whether to come again is all that can be done. */
  get isPassing() {
    return this.status === 0 || this.status >= 502;
  }
}

const listeners = new Set();

/** Have `listener({problem, asOf})` told of every answer. */
export function onAnswer(listener) {
  listeners.add(listener);
}

function tell(told) {
  for (const listener of listeners) listener(told);
}

export function path(...parts) {
  return parts.map((part) => encodeURIComponent(part)).join("/");
}

/** "a=1&b=2&b=3" of {a: 1, b: [2, 3]}; what is empty is left out. */
export function query(asked) {
  const found = new URLSearchParams();
  for (const [name, value] of Object.entries(asked)) {
    for (const one of Array.isArray(value) ? value : [value]) {
      if (one !== null && one !== undefined && one !== "" && one !== false) found.append(name, one);
    }
  }
  return found.toString();
}

export function address(where, asked = {}) {
  const text = query(asked);
  return `${BASE}/${where}${text ? `?${text}` : ""}`;
}

export function headers() {
  return session.token ? { Authorization: `Bearer ${session.token}` } : {};
}

/** The document that `where` answers with. Throws Problem; AbortError where `signal` aborts. */
export async function get(where, asked = {}, signal = undefined) {
  return send("GET", address(where, asked), undefined, signal);
}

/** Have something done; null where there is nothing to be said about it. */
export async function act(method, where, asked = {}, body = undefined) {
  return send(method, address(where, asked), body);
}

async function send(method, url, body, signal) {
  const patience = AbortSignal.timeout(PATIENCE_MS);
  let answer;
  let document = null;
  try {
    answer = await fetch(url, {
      method,
      headers: { ...headers(), ...(body !== undefined && { "Content-Type": "application/json" }) },
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: signal ? AbortSignal.any([signal, patience]) : patience,
      cache: "no-store",
    });
    if (answer.status !== 204) document = await answer.json();
  } catch (error) {
    if (signal?.aborted) throw error;
    throw failed(answer ? unreadable(answer) : away(patience.aborted));
  }
  heed(answer.headers.get("date"));
  if (!answer.ok) throw failed(new Problem({ ...document, status: answer.status }));
  tell({ problem: null, asOf: document?.as_of ?? null });
  return document;
}

/** The problem of an answer that is none of the documents that were asked for. */
export async function problemOf(answer) {
  try {
    return failed(new Problem({ ...(await answer.json()), status: answer.status }));
  } catch {
    return failed(unreadable(answer));
  }
}

function failed(problem) {
  tell({ problem, asOf: null });
  return problem;
}

function away(isLate) {
  return new Problem({
    status: 0,
    title: "The console is away",
    detail: isLate
      ? `The console gave no answer in ${PATIENCE_MS / 1000} s.`
      : "The console does not answer. It may be restarting; this page goes on by itself.",
  });
}

function unreadable(answer) {
  return new Problem({
    status: answer.status,
    title: "The answer cannot be read",
    detail: `The console answered ${answer.status} with what is no JSON. Is a proxy in between?`,
  });
}
