// Small helpers over the document. Text from the server only ever becomes textContent.

export const byId = (id) => document.getElementById(id);

export function element(tag, { text, ...properties } = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  if (text !== undefined) node.textContent = text;
  node.append(...children);
  return node;
}

// Writes only what has changed, so that a screen reader and a selection are left in peace.
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// Fills a <dl> with [key, term, value] rows, reusing the nodes that are there. "–" holds the place of a value
// to come, so that nothing jumps.
export function setFacts(list, rows) {
  rows.forEach(([key, term, value], index) => {
    let row = list.children[index];
    if (!row) {
      row = element("div", {}, element("dt"), element("dd"));
      list.append(row);
    }
    setText(row.children[0], term);
    setText(row.children[1], value ?? "–");
    row.children[1].title = value ?? "";
    row.children[1].dataset.fact = key;
  });
  while (list.children.length > rows.length) list.lastChild.remove();
}

// Null of what is not known.
export const withUnit = (value, unit, digits = 0) =>
  Number.isFinite(value) ? `${value.toFixed(digits)} ${unit}` : null;
export const megabits = (bps) => withUnit(bps && bps / 1e6, "Mbit/s", 1);
export const size = (width, height) => (width && height ? `${width} × ${height}` : null);
