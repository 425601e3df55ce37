// An address that leads nowhere.

import { h } from "../dom.js";
import { empty } from "../parts.js";

export const unknown = {
  title: () => "No such page",
  every: 60_000,
  load: async () => ({}),
  view: () => empty("Nothing is at this address",
    h("span", null, "Go to the ", h("a", { href: "#/" }, "overview"), ", or press ",
      h("kbd", null, "/"), " to search for a task.")),
};
