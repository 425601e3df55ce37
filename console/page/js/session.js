// Who is logged in: the token, kept for this tab alone, and what it may do.

const PLACE = "taskmill.token";
const IMPLIED = { operate: ["read"], admin: ["enqueue", "read", "operate"] };

export const session = { token: sessionStorage.getItem(PLACE), me: null };

/** Take a token out of the address (`#token=…`) before anything else sees it. */
export function takeFromAddress() {
  if (!location.hash.startsWith("#token=")) return;
  const [token, next] = location.hash.slice("#token=".length).split("&next=");
  history.replaceState(null, "", `${location.pathname}#${decodeURIComponent(next ?? "/")}`);
  keep(decodeURIComponent(token));
}

export function keep(token) {
  session.token = token.trim() || null;
  session.me = null;
  if (session.token) sessionStorage.setItem(PLACE, session.token);
  else sessionStorage.removeItem(PLACE);
}

/** All that the token may do. */
export function scopes() {
  const given = session.me?.scopes ?? [];
  return new Set(given.flatMap((one) => [one, ...(IMPLIED[one] ?? [])]));
}

/** Why the token may not do this in that queue; null: it may. */
export function whyNot(scope, queue = null) {
  const { me } = session;
  if (!me) return "No token is known yet.";
  if (!scopes().has(scope)) {
    return `Token ${me.token} has not the scope “${scope}”, which this needs.`;
  }
  if (queue !== null && me.queues !== null && !me.queues.includes(queue)) {
    return `Token ${me.token} does not hold for queue “${queue}”.`;
  }
  return null;
}
