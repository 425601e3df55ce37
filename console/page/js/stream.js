// Server-sent events over fetch, since EventSource cannot send a token: opened again when they
// break off, behind the last event that came.

import { address, headers, problemOf } from "./api.js";

// The server sends a comment every 10 s when nothing happens.
const SILENCE_MS = 25_000;
const FIRST_MS = 500;
const LONGEST_MS = 15_000;

export class Stream {
  /** `on(kind, data)` for each event, "new" where what was loaded before is to be loaded again;
   * `say(state)`: "connecting", "open", "lost". */
  constructor(asked, on, say) {
    this.asked = asked;
    this.on = on;
    this.say = say;
    this.last = null;
    this.wait = FIRST_MS;
    this.ending = new AbortController();
    this.run();
  }

  close() {
    this.ending.abort();
  }

  async run() {
    while (!this.ending.signal.aborted) {
      this.say("connecting");
      const going = await this.read();
      if (this.ending.signal.aborted || !going) return;
      this.say("lost");
      await this.pause(this.wait * (0.75 + Math.random() / 2));
      this.wait = Math.min(this.wait * 2, LONGEST_MS);
    }
  }

  /** One connection, to its end; false: another would be refused as well. */
  async read() {
    const silent = new AbortController();
    let watch = setTimeout(() => silent.abort(), SILENCE_MS);
    try {
      const answer = await fetch(address("tasks/stream", this.asked), {
        headers: {
          ...headers(),
          Accept: "text/event-stream",
          ...(this.last ? { "Last-Event-ID": this.last } : {}),
        },
        signal: AbortSignal.any([this.ending.signal, silent.signal]),
        cache: "no-store",
      });
      if (!answer.ok) {
        const problem = await problemOf(answer);
        return problem.isPassing;
      }
      this.say("open");
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      const events = new Events((event) => this.take(event));
      for (;;) {
        const { value, done } = await reader.read();
        if (done) return true;
        clearTimeout(watch);
        watch = setTimeout(() => silent.abort(), SILENCE_MS);
        events.feed(value);
      }
    } catch {
      return true;
    } finally {
      clearTimeout(watch);
    }
  }

  take({ id, kind, data }) {
    // What changed before the first word of a stream, it does not tell.
    const isNew = kind === "reset" || (kind === "hello" && this.last === null);
    if (id) this.last = id;
    this.wait = FIRST_MS;
    if (!this.ending.signal.aborted) this.on(isNew ? "new" : kind, data);
  }

  pause(ms) {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.ending.signal.addEventListener("abort", () => {
        clearTimeout(timer);
        resolve();
      });
    });
  }
}

/** Takes text in pieces; gives events whole. */
class Events {
  constructor(give) {
    this.give = give;
    this.rest = "";
    this.clear();
  }

  clear() {
    this.id = null;
    this.kind = "message";
    this.data = [];
  }

  feed(text) {
    const lines = (this.rest + text).split("\n");
    this.rest = lines.pop();
    for (const line of lines) this.line(line.endsWith("\r") ? line.slice(0, -1) : line);
  }

  line(line) {
    if (line === "") {
      if (this.data.length) {
        this.give({ id: this.id, kind: this.kind, data: JSON.parse(this.data.join("\n")) });
      }
      this.clear();
      return;
    }
    const colon = line.indexOf(":");
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (name === "id") this.id = value;
    else if (name === "event") this.kind = value;
    else if (name === "data") this.data.push(value);
  }
}
