// Light, dark, or as the system has it; kept in this browser.

const PLACE = "taskmill.scheme";
const ORDER = ["auto", "light", "dark"];

export function scheme() {
  const kept = localStorage.getItem(PLACE);
  return ORDER.includes(kept) ? kept : "auto";
}

export function applyScheme() {
  const chosen = scheme();
  if (chosen === "auto") delete document.documentElement.dataset.scheme;
  else document.documentElement.dataset.scheme = chosen;
}

export function nextScheme() {
  const next = ORDER[(ORDER.indexOf(scheme()) + 1) % ORDER.length];
  localStorage.setItem(PLACE, next);
  applyScheme();
}
