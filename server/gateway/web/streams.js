// The list of streams.

import { element, setText, size } from "./dom.js";
import { outputs, STATE_WORDS } from "./facts.js";
import { Thumbnails } from "./thumbnails.js";

const thumbnails = new Thumbnails();

// Keeps the nodes of streams that are still there, so that keyboard focus survives the polling.
export function showList(list, streams, currentId) {
  const items = new Map([...list.children].map((item) => [item.dataset.id, item]));
  streams.forEach((stream, index) => {
    const item = items.get(stream.id) ?? newItem(stream.id);
    items.delete(stream.id);
    item.dataset.state = stream.state;
    item.dataset.picture = String(stream.output !== null);
    const link = item.firstChild;
    if (stream.id === currentId) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
    const about = aboutOf(stream);
    setText(item.querySelector(".about"), about || STATE_WORDS[stream.state]);
    item.querySelector(".about").ariaHidden = String(!about);
    setText(item.querySelector(".hidden"), STATE_WORDS[stream.state]); // what the dot says by its colour
    showOutputs(item.querySelector(".outputs"), outputs(stream));
    if (list.children[index] !== item) list.insertBefore(item, list.children[index] ?? null);
  });
  for (const item of items.values()) {
    thumbnails.forget(item);
    item.remove();
  }
}

// Each word once; which of them and why is on the stream's own page.
function showOutputs(line, rows) {
  const words = [...new Map(rows.map((row) => [row.word, row])).values()];
  words.forEach(({ word, good }, index) => {
    const part = line.children[index] ?? line.appendChild(element("span"));
    setText(part, word);
    part.dataset.good = String(good);
  });
  while (line.children.length > words.length) line.lastChild.remove();
}

function newItem(id) {
  const link = element(
    "a",
    { href: `#${encodeURIComponent(id)}` },
    element("canvas", { className: "thumbnail", width: 160, height: 90, ariaHidden: "true" }),
    element("span", { className: "dot" }),
    element("span", { className: "name", text: id }),
    element("span", { className: "about" }),
    element("span", { className: "hidden" }),
    element("span", { className: "outputs" }),
  );
  const item = element("li", {}, link);
  item.dataset.id = id;
  thumbnails.watch(item);
  return item;
}

// Its picture's size, where there is a picture.
function aboutOf({ state, output }) {
  return state === "running" ? size(output?.width, output?.height) : null;
}
