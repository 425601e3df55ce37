// One page at work: it loads, is shown, looks again, and hears what changes.

import { h, render } from "./dom.js";
import { sayStream } from "./live.js";
import { trouble } from "./parts.js";
import { Stream } from "./stream.js";

/** A page is made of `definition`:
 *
 *  title(page)       what it is called
 *  load(page)        its data; `page.signal` ends what is no longer wanted
 *  view(page)        what it shows of `page.data` (null until it was loaded)
 *  every             milliseconds between two looks
 *  stream(page)      which tasks to hear of; by default those that died
 *  on(page, kind, task)   one of them changed
 */
export class Page {
  constructor(definition, root, params) {
    this.definition = definition;
    this.root = root;
    this.params = params;
    this.data = null;
    this.problem = null;
    this.own = {};
    this.isOver = false;
    this.timer = null;
    this.loading = null;
    this.hears = null;
    definition.begin?.(this);
    this.onShown = () => !document.hidden && this.refresh();
    document.addEventListener("visibilitychange", this.onShown);
    this.listen();
    this.draw();
    this.refresh();
  }

  get signal() {
    return this.loading.signal;
  }

  /** The same page with other parameters: what it shows stays until the new is there. */
  become(params) {
    this.params = params;
    this.definition.begin?.(this);
    this.listen();
    this.draw();
    this.refresh();
  }

  end() {
    this.isOver = true;
    clearTimeout(this.timer);
    this.loading?.abort();
    this.stream?.close();
    document.removeEventListener("visibilitychange", this.onShown);
    this.definition.end?.(this);
  }

  async refresh() {
    clearTimeout(this.timer);
    this.loading?.abort();
    const mine = (this.loading = new AbortController());
    try {
      const data = await this.definition.load(this);
      if (mine.signal.aborted) return;
      this.data = data;
      this.problem = null;
    } catch (error) {
      if (mine.signal.aborted) return;
      this.problem = error;
      if (error.status === undefined) console.error(error);
    }
    if (this.loading === mine) this.loading = null;
    this.update();
    const { every = 5000 } = this.definition;
    this.timer = setTimeout(() => !document.hidden && this.refresh(), every);
  }

  /** Look again soon, once for all that happened meanwhile. */
  refreshSoon(ms = 300) {
    if (this.soon || this.isOver) return;
    this.soon = setTimeout(() => {
      this.soon = null;
      if (!this.isOver) this.refresh();
    }, ms);
  }

  /** Show what is so by now, with the next frame. */
  update() {
    if (this.isDue || this.isOver) return;
    this.isDue = true;
    requestAnimationFrame(() => {
      this.isDue = false;
      if (!this.isOver) this.draw();
    });
  }

  draw() {
    const { definition } = this;
    const title = definition.title(this);
    document.title = `${title} · taskmill`;
    // Data that is there is worth more than an empty page, however old: the header says how old.
    const isBlank = this.data === null && this.problem === null;
    this.root.setAttribute("aria-busy", String(isBlank));
    render(this.root,
      h("div", { class: "head", key: "head" },
        h("h1", { tabindex: "-1" }, definition.heading?.(this) ?? title),
        definition.tools?.(this)),
      trouble(this.problem),
      isBlank ? h("p", { class: "dim", key: "wait" }, "Loading…")
        : this.data !== null && h("div", { key: "body", class: "body" }, definition.view(this)));
  }

  listen() {
    const asked = this.definition.stream?.(this) ?? { status: ["dead"] };
    const hears = JSON.stringify(asked);
    if (hears === this.hears) return;
    this.hears = hears;
    this.stream?.close();
    this.stream = new Stream(asked, (kind, task) => {
      if (kind === "new") this.become(this.params);
      else if (kind === "task") this.definition.on?.(this, task);
    }, sayStream);
  }
}
