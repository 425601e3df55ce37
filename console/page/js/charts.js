// Charts by the minute: shapes are drawn to a grid of one unit a minute and stretched, words stand
// around them as text. A minute is pointed at, or chosen with the arrow keys.

import { h } from "./dom.js";
import { clock } from "./format.js";

const HIGH = 100;

/** `series`: [{name, tone, values}], one value a minute, null where there is none; `format` makes a
 * value readable; `kind`: "bars" (stacked) or "lines". */
export function chart(page, { title, kind, times, series, format }) {
  const own = ((page.own.charts ??= {})[title] ??= { at: null });
  const most = nice(Math.max(...tops(kind, series), 0));
  const point = (at) => {
    own.at = at;
    page.update();
  };
  const at = own.at === null ? null : Math.min(own.at, times.length - 1);
  return h("figure", { class: "chart", key: title },
    h("figcaption", null, h("h2", null, title), readout(times, series, format, at)),
    h("div", { class: "plot" },
      h("div", { class: "scale", "aria-hidden": "true" },
        h("span", null, format(most)), h("span", null, format(most / 2)), h("span", null, "0")),
      h("div", {
        class: "shapes",
        tabindex: "0",
        role: "group",
        "aria-roledescription": "chart",
        "aria-label": `${title}, ${times.length} minutes. Arrow keys choose one.`,
        onkeydown: (event) => choose(event, times.length, at, point),
        onblur: () => point(null),
        onpointermove: (event) => point(under(event, times.length)),
        onpointerleave: () => point(null),
      }, drawing(kind, series, times.length, most, at)),
      h("div", { class: "hours", "aria-hidden": "true" },
        [0, 1 / 3, 2 / 3, 1].map((share) =>
          h("span", null, clock(times[Math.round(share * (times.length - 1))]).slice(0, 5))))));
}

function drawing(kind, series, minutes, most, at) {
  return h("svg", { viewBox: `0 0 ${minutes} ${HIGH}`, preserveAspectRatio: "none",
    "aria-hidden": "true", focusable: "false" },
    h("path", { class: "grid", d: [0, HIGH / 2, HIGH].map((y) => `M0 ${y}H${minutes}`).join("") }),
    at !== null && h("rect", { class: "cursor", key: "cursor", x: at, y: 0, width: 1,
      height: HIGH }),
    kind === "bars" ? bars(series, most) : lines(series, most));
}

/** One path for each series: as many elements as there are colours. */
function bars(series, most) {
  const below = [];
  return series.map(({ name, tone, values }) => {
    let d = "";
    values.forEach((value, i) => {
      if (!value) return;
      const from = below[i] ?? 0;
      below[i] = from + value;
      const high = Math.max((value / most) * HIGH, 0.8);
      d += `M${i + 0.12} ${fix(HIGH - (from / most) * HIGH)}v${fix(-high)}h.76v${fix(high)}z`;
    });
    return h("path", { key: name, class: `heap ${tone}`, d });
  });
}

function lines(series, most) {
  return series.map(({ name, tone, values }) => {
    let d = "";
    let isDrawn = false;
    values.forEach((value, i) => {
      if (value === null || value === undefined) {
        isDrawn = false;
        return;
      }
      const y = fix(HIGH - (value / most) * HIGH);
      // A minute between two without a value is a short line.
      d += isDrawn ? `L${i + 0.5} ${y}` : `M${i + 0.3} ${y}h.4`;
      isDrawn = true;
    });
    return h("path", { key: name, class: `line ${tone}`, d });
  });
}

function readout(times, series, format, at) {
  const minute = at === null ? "last full minute" : `${clock(times[at]).slice(0, 5)} UTC`;
  return h("div", { class: "readout", "aria-live": at === null ? "off" : "polite" },
    h("span", { class: "at" }, minute),
    series.map(({ name, tone, values }) => h("span", { class: "key" },
      h("span", { class: `swatch ${tone}`, "aria-hidden": "true" }), `${name} `,
      // The last minute has only begun: the one before it can be compared.
      h("b", null, format(values[at ?? Math.max(values.length - 2, 0)] ?? null)))));
}

function choose(event, minutes, at, point) {
  const step = { ArrowLeft: -1, ArrowRight: 1, Home: -minutes, End: minutes }[event.key];
  if (!step) return;
  event.preventDefault();
  point(Math.min(Math.max((at ?? minutes - 1) + step, 0), minutes - 1));
}

function under(event, minutes) {
  const { left, width } = event.currentTarget.getBoundingClientRect();
  const at = Math.floor(((event.clientX - left) / width) * minutes);
  return Math.min(Math.max(at, 0), minutes - 1);
}

function tops(kind, series) {
  if (kind === "lines") return series.flatMap(({ values }) => values.map((value) => value ?? 0));
  return (series[0]?.values ?? []).map((_, i) =>
    series.reduce((sum, { values }) => sum + (values[i] ?? 0), 0));
}

/** The next of 1, 2, 5, 10, 20 … above: a scale that does not move with every value. */
function nice(most) {
  if (most <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(most));
  return [1, 2, 5, 10].map((factor) => factor * power).find((one) => one >= most);
}

function fix(number) {
  return Number(number.toFixed(2));
}
