// Times, durations and numbers as people read them. Durations are milliseconds unless named so.

const COUNT = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const NONE = "–";

let skew = 0;

/** The server's clock, in milliseconds: a laptop's may be minutes off. */
export function now() {
  return Date.now() + skew;
}

/** Take the time of an answer's Date header, which counts seconds. */
export function heed(date) {
  const theirs = Date.parse(date);
  if (Number.isNaN(theirs)) return;
  const off = theirs + 500 - Date.now();
  skew = Math.abs(off) > 2000 ? off : 0;
}

export function count(number) {
  return number === null || number === undefined ? NONE : COUNT.format(number);
}

/** "1 letter", "2 letters". */
export function plural(number, one, many = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : many}`;
}

/** Per second. */
export function rate(number) {
  if (number === null || number === undefined) return NONE;
  if (number === 0) return "0";
  if (number < 0.01) return "<0.01";
  return number < 10 ? number.toFixed(2) : number < 100 ? number.toFixed(1) : count(number);
}

export function percent(share) {
  if (share === null || share === undefined) return NONE;
  // What is not quite all shall not read as all.
  if (share < 1 && share > 0.9999) return "99.99 %";
  if (share === 1 || share === 0) return `${share * 100} %`;
  const text = (share * 100).toFixed(share > 0.99 ? 2 : 1);
  return `${text} %`;
}

/** About: "820 ms", "1.2 s", "3 m 12 s", "2 h 5 m", "4 d 3 h". */
export function duration(ms) {
  if (ms === null || ms === undefined) return NONE;
  if (ms < 0) return `−${duration(-ms)}`;
  if (ms < 10) return `${Number(ms.toFixed(1))} ms`;
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 10_000) return `${(ms / 1000).toFixed(1)} s`;
  const s = Math.round(ms / 1000);
  if (s < 60) return `${s} s`;
  if (s < 3600) return two(Math.floor(s / 60), "m", s % 60, "s");
  if (s < 86_400) return two(Math.floor(s / 3600), "h", Math.floor((s % 3600) / 60), "m");
  return two(Math.floor(s / 86_400), "d", Math.floor((s % 86_400) / 3600), "h");
}

function two(much, unit, few, smaller) {
  return few ? `${much} ${unit} ${few} ${smaller}` : `${much} ${unit}`;
}

export function seconds(s) {
  return duration(s === null || s === undefined ? null : s * 1000);
}

/** As the API takes it, to the millisecond: "90s", "1d". */
export function written(ms) {
  if (ms === null || ms === undefined) return "";
  for (const [unit, size] of [["d", 86_400_000], ["h", 3_600_000], ["m", 60_000], ["s", 1000]]) {
    if (ms && ms % size === 0) return `${ms / size}${unit}`;
  }
  return ms ? `${ms}ms` : "0s";
}

/** "12 s ago", "in 3 m". */
export function relative(iso) {
  const off = now() - Date.parse(iso);
  if (Math.abs(off) < 1000) return "now";
  const coarse = Math.floor(Math.abs(off) / 1000) * 1000;
  const text = coarse < 10_000 ? `${coarse / 1000} s` : duration(coarse);
  return off > 0 ? `${text} ago` : `in ${text}`;
}

/** "2026-11-26 14:00:01.250 UTC". */
export function exact(iso) {
  return `${new Date(iso).toISOString().replace("T", " ").replace("Z", "")} UTC`;
}

/** "14:00:01". */
export function clock(iso) {
  return new Date(iso).toISOString().slice(11, 19);
}

export function json(value) {
  return JSON.stringify(value, null, 2);
}
