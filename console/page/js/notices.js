// Short notices at the foot of the page: what was done, or why not.

const LONG_MS = 6000;

/** Say it, also to who hears the page. */
export function notice(text, tone = "good") {
  const place = document.getElementById("notices");
  const one = document.createElement("p");
  one.className = `notice ${tone}`;
  one.textContent = text;
  place.append(one);
  while (place.childElementCount > 3) place.firstElementChild.remove();
  setTimeout(() => one.remove(), tone === "good" ? LONG_MS : LONG_MS * 2);
}
