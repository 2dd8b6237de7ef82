// Wires the page: which stream is shown (the address's #fragment), and what is asked of the server when.

import { createStream, deleteStream, listStreams, releaseStream, showStream, showViewer } from "./api.js";
import { loggedIn, logIn, logOut, takeTokenFromAddress } from "./auth.js";
import { bindAdd, bindDelete, bindLogin } from "./dialogs.js";
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
  if (byId("login-dialog").open) return;
  try {
    streams = await listStreams();
    showWhoIsIn();
    byId("offline").hidden = true;
    route();
  } catch (error) {
    byId("offline").hidden = error.status === 401;
    if (error.status === 401) askForToken(error);
  }
}

function showWhoIsIn() {
  byId("logout").hidden = !loggedIn();
  byId("metrics").hidden = loggedIn(); // a link sends no token
}

function askForToken({ message }) {
  const why = loggedIn() ? message : "";
  logOut();
  showWhoIsIn();
  streams = null;
  view.select(null);
  byId("stream").hidden = byId("empty").hidden = byId("gone").hidden = true;
  showList(byId("streams"), [], "");
  askToLogIn(why);
}

const askToLogIn = bindLogin(async (token) => {
  logIn(token);
  try {
    streams = await listStreams();
  } catch (error) {
    logOut();
    throw error;
  }
  showWhoIsIn();
  route();
});

async function refreshStream() {
  const { id, session } = view;
  if (id === null) return;
  try {
    const viewer = session === null ? null : showViewer(id, session).catch(() => null); // it may just have ended
    view.update(id, await showStream(id), await viewer);
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

byId("release").addEventListener("click", async () => {
  try {
    await releaseStream(view.id);
    await refreshStream();
  } catch (error) {
    setText(byId("player-note"), error.message);
  }
});

byId("logout").addEventListener("click", () => {
  logOut();
  location.reload();
});

addEventListener("hashchange", () => {
  takeTokenFromAddress();
  route();
});
document.addEventListener("visibilitychange", () => {
  if (document.hidden) return;
  view.comeToSight();
  refreshList();
});
addEventListener("pagehide", () => view.leave());
addEventListener("pageshow", (event) => event.persisted && view.comeBack());

takeTokenFromAddress();
every(LIST_EVERY_MS, refreshList);
every(SHOW_EVERY_MS, refreshStream);
