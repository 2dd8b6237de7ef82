// Wires the page: which stream is shown (the address's #fragment), and what is asked of the server when.

import { createStream, deleteStream, listStreams, showStream } from "./api.js";
import { bindAdd, bindDelete } from "./dialogs.js";
import { byId, setText } from "./dom.js";
import { showList } from "./streams.js";
import { StreamView } from "./view.js";

const LIST_EVERY_MS = 2_000;
const SHOW_EVERY_MS = 1_000;

const view = new StreamView();
let streams = null; // null until the server has answered once

function currentId() {
  try {
    return decodeURIComponent(location.hash.slice(1));
  } catch {
    return location.hash.slice(1); // not of our making
  }
}

function route() {
  if (streams === null) return;
  let id = currentId();
  if (!id && streams.length) {
    id = streams[0].id;
    history.replaceState(null, "", `#${encodeURIComponent(id)}`);
  }
  const exists = streams.some((stream) => stream.id === id);
  byId("empty").hidden = streams.length > 0 || id !== "";
  byId("gone").hidden = id === "" || exists;
  setText(byId("gone-id"), id);
  byId("stream").hidden = !exists;
  byId("no-streams").hidden = streams.length > 0;
  showList(byId("streams"), streams, id);
  document.title = exists ? `${id} · livesr` : "livesr";
  if (view.select(exists ? id : null)) refreshStream();
}

async function refreshList() {
  try {
    streams = await listStreams();
    byId("offline").hidden = true;
    route();
  } catch {
    byId("offline").hidden = false;
  }
}

async function refreshStream() {
  const id = view.id;
  if (id === null) return;
  try {
    view.update(id, await showStream(id));
  } catch {
    view.update(id, null); // the list's own polling says why
  }
}

// One request at a time, however slow the answers.
async function every(milliseconds, refresh) {
  for (;;) {
    if (!document.hidden) await refresh();
    await new Promise((resolve) => setTimeout(resolve, milliseconds));
  }
}

bindAdd([byId("add"), byId("add-first")], async (fields) => {
  const { id } = await createStream(fields);
  location.hash = encodeURIComponent(id);
  await refreshList();
});

bindDelete(byId("delete"), currentId, async (id) => {
  await deleteStream(id);
  history.replaceState(null, "", "#");
  await refreshList();
});

addEventListener("hashchange", route);
document.addEventListener("visibilitychange", () => document.hidden || refreshList());
addEventListener("pagehide", () => view.leave());
addEventListener("pageshow", (event) => event.persisted && view.comeBack());

every(LIST_EVERY_MS, refreshList);
every(SHOW_EVERY_MS, refreshStream);
