// The list of streams.

import { element, setText, size } from "./dom.js";
import { STATE_WORDS } from "./facts.js";

// Keeps the nodes of streams that are still there, so that keyboard focus survives the polling.
export function showList(list, streams, currentId) {
  const items = new Map([...list.children].map((item) => [item.dataset.id, item]));
  streams.forEach((stream, index) => {
    const item = items.get(stream.id) ?? newItem(stream.id);
    items.delete(stream.id);
    item.dataset.state = stream.state;
    const link = item.firstChild;
    if (stream.id === currentId) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
    const about = aboutOf(stream);
    setText(item.querySelector(".about"), about || STATE_WORDS[stream.state]);
    item.querySelector(".about").ariaHidden = String(!about);
    setText(item.querySelector(".hidden"), STATE_WORDS[stream.state]); // what the dot says by its colour
    if (list.children[index] !== item) list.insertBefore(item, list.children[index] ?? null);
  });
  for (const item of items.values()) item.remove();
}

function newItem(id) {
  const link = element(
    "a",
    { href: `#${encodeURIComponent(id)}` },
    element("span", { className: "dot" }),
    element("span", { className: "name", text: id }),
    element("span", { className: "about" }),
    element("span", { className: "hidden" }),
  );
  const item = element("li", {}, link);
  item.dataset.id = id;
  return item;
}

// Its picture's size, where there is a picture.
function aboutOf({ state, output }) {
  return state === "running" ? size(output?.width, output?.height) : null;
}
