// Dialogs: asked before what cannot be taken back, and for what needs more than a yes.

import { h, render } from "./dom.js";
import { notice } from "./notices.js";

/** Show a dialog with what `view(dialog)` gives; `dialog.update()` looks again, `dialog.close()`
 * ends it. The focus goes back to where it was. */
export function show(label, view, props = {}) {
  const node = document.createElement("dialog");
  node.setAttribute("aria-label", label);
  if (props.wide) node.classList.add("wide");
  const dialog = {
    node,
    update: () => render(node, view(dialog)),
    close: () => node.close(),
  };
  node.addEventListener("close", () => {
    props.onclose?.();
    node.remove();
  });
  // A click beside it, on what lies behind.
  node.addEventListener("mousedown", (event) => {
    if (event.target === node) node.close();
  });
  document.body.append(node);
  dialog.update();
  node.showModal();
  return dialog;
}

/** Ask before something is done: `what` says exactly what will happen. `run` does it; what goes
 * wrong is shown where it was asked. */
export function ask({ title, what, yes, run, done, tone = "danger" }) {
  let problem = null;
  let busy = false;
  async function doIt(dialog) {
    if (busy) return;
    busy = true;
    dialog.update();
    try {
      const answer = await run();
      dialog.close();
      const text = typeof done === "function" ? done(answer) : done;
      if (text) notice(text);
    } catch (error) {
      problem = error;
      busy = false;
      dialog.update();
    }
  }
  return show(title, (dialog) => [
    h("h2", null, title),
    [what].flat().map((one) => (typeof one === "string" ? h("p", null, one) : one)),
    problem && h("p", { class: "wrong", role: "alert" }, problem.message),
    h("footer", null,
      h("button", { type: "button", class: "button", autofocus: true,
        onclick: () => dialog.close() }, "Leave it"),
      h("button", { type: "button", class: `button ${tone}`, disabled: busy,
        onclick: () => doIt(dialog) }, busy ? "Asking…" : yes)),
  ]);
}

/** Do what needs no question, and say how it went. */
export async function perform(run, done) {
  try {
    const answer = await run();
    notice(typeof done === "function" ? done(answer) : done);
    return answer;
  } catch (error) {
    notice(error.message, "bad");
    return null;
  }
}
