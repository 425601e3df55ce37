// Addresses behind the `#`: a path of encoded parts, and a query.

/** {parts: ["tasks", "default", "a/b"], query: URLSearchParams} */
export function here() {
  const text = location.hash.replace(/^#\/?/, "");
  const [path, query = ""] = text.split(/\?(.*)/s);
  const parts = path.split("/").filter(Boolean).map(decode);
  return { parts, query: new URLSearchParams(query) };
}

function decode(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/** "#/tasks/default/a%2Fb?attempt=2" */
export function to(parts, asked = {}) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(asked)) {
    for (const one of Array.isArray(value) ? value : [value]) {
      if (one !== null && one !== undefined && one !== "" && one !== false) query.append(name, one);
    }
  }
  const text = query.toString();
  return `#/${parts.map(encodeURIComponent).join("/")}${text ? `?${text}` : ""}`;
}

export function go(address) {
  location.hash = address;
}

/** Go there without a new step of the browser's history. */
export function amend(address) {
  history.replaceState(null, "", address);
  dispatchEvent(new HashChangeEvent("hashchange"));
}

export function taskAt(queue, id) {
  return to(["tasks", queue, id]);
}
