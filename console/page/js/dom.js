// What is on the page, as plain descriptions that are laid over the elements that are there: these
// keep their focus, their selection and their place.

const SVG = "http://www.w3.org/2000/svg";
const KEY = Symbol("key");
const PROPS = Symbol("props");
// Set as properties: as attributes they would only say how the element began.
const LIVE = new Set(["value", "checked", "disabled", "selected", "open", "indeterminate"]);

/** An element to be: its tag, attributes (`on…` are listeners, `key` its identity among siblings,
 * `ref` is called with the element once it is made), children (null and false are left out). */
export function h(tag, props, ...children) {
  return { tag, props: props ?? {}, children: children.flat(Infinity).filter(isThere) };
}

/** Have `parent` hold just `children`. */
export function render(parent, ...children) {
  patchChildren(parent, children.flat(Infinity).filter(isThere));
}

function isThere(child) {
  return child !== null && child !== undefined && child !== false && child !== "";
}

function patchChildren(parent, wanted) {
  const keys = new Set(wanted.map(keyOf).filter((key) => key !== undefined));
  const known = new Map();
  for (const node of [...parent.childNodes]) {
    if (node[KEY] === undefined) continue;
    // What goes, goes first: then what stays need not be moved, which would cost it its focus.
    if (keys.has(node[KEY])) known.set(node[KEY], node);
    else node.remove();
  }
  let at = parent.firstChild;
  for (const one of wanted) {
    const key = keyOf(one);
    let node = key === undefined ? at : known.get(key);
    if (node && !fits(node, one, key)) node = null;
    if (!node) {
      node = make(one, parent);
      parent.insertBefore(node, at);
    } else if (node === at) {
      at = at.nextSibling;
    } else {
      parent.insertBefore(node, at);
    }
    patch(node, one);
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

function keyOf(one) {
  return one.tag === undefined ? undefined : one.props.key;
}

function fits(node, one, key) {
  if (one.tag === undefined) return node.nodeType === Node.TEXT_NODE;
  return node.localName === one.tag && node[KEY] === key;
}

function make(one, parent) {
  if (one.tag === undefined) return document.createTextNode("");
  const isSvg =
    one.tag === "svg" || (parent.namespaceURI === SVG && parent.localName !== "foreignObject");
  const node = isSvg ? document.createElementNS(SVG, one.tag) : document.createElement(one.tag);
  node[KEY] = one.props.key;
  one.props.ref?.(node);
  return node;
}

function patch(node, one) {
  if (one.tag === undefined) {
    const text = String(one);
    if (node.nodeValue !== text) node.nodeValue = text;
    return;
  }
  const before = node[PROPS] ?? {};
  // A choice can be made only once its options are there.
  const isChoice = one.tag === "select";
  if (!isChoice) setAll(node, before, one.props);
  patchChildren(node, one.children);
  if (isChoice) setAll(node, before, one.props);
  node[PROPS] = one.props;
}

function setAll(node, before, props) {
  for (const name of Object.keys(before)) if (!(name in props)) set(node, name, null);
  for (const [name, value] of Object.entries(props)) {
    if (before[name] !== value) set(node, name, value);
  }
}

function set(node, name, value) {
  if (name === "key" || name === "ref") return;
  if (name.startsWith("on")) {
    node[name] = value ?? null;
  } else if (LIVE.has(name) && name in node) {
    node[name] = value ?? (name === "value" ? "" : false);
  } else if (value === null || value === undefined || value === false) {
    node.removeAttribute(name);
  } else {
    node.setAttribute(name, value === true ? "" : value);
  }
}
