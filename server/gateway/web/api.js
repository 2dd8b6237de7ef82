// The gateway's REST interface, as far as this page needs it.

import { withToken } from "./auth.js";

export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export const listStreams = () => call("GET", "/api/streams");
export const showStream = (id) => call("GET", streamPath(id));
// What the server knows of this viewer's network; `session` is the WHEP session's id.
export const showViewer = (id, session) =>
  call("GET", `${streamPath(id)}/viewers/${encodeURIComponent(session)}`);
export const createStream = (fields) => call("POST", "/api/streams", fields);
export const deleteStream = (id) => call("DELETE", streamPath(id));
// Its workers may die again as if none had.
export const releaseStream = (id) => call("POST", `${streamPath(id)}/release`);
// A path that a player can open, which sends no token.
export const hlsPath = async (id) => (await call("POST", `${streamPath(id)}/hls-path`)).url;
// Its picture as a JPEG so wide; an old one rather than wake a stream that nobody watches.
export const snapshot = async (id, width) => {
  const path = `${streamPath(id)}/snapshot.jpg?width=${width}&max_age=86400`;
  return (await request(path, { headers: withToken({ accept: "image/jpeg" }), cache: "no-cache" })).blob();
};

const streamPath = (id) => `/api/streams/${encodeURIComponent(id)}`;

async function call(method, path, fields) {
  const options = { method, headers: withToken({ accept: "application/json" }), cache: "no-store" };
  if (fields) {
    options.headers["content-type"] = "application/json";
    options.body = JSON.stringify(fields);
  }
  const response = await request(path, options);
  return response.status === 204 ? null : response.json();
}

async function request(path, options) {
  const response = await fetch(path, { ...options, signal: AbortSignal.timeout(15_000) });
  if (!response.ok) throw new ApiError(response.status, await errorText(response));
  return response;
}

// The server's own words; they name the field, the value and the rule.
export async function errorText(response) {
  const text = await response.text();
  try {
    const { detail } = JSON.parse(text);
    if (typeof detail === "string") return detail;
    if (Array.isArray(detail)) return detail.map(({ loc, msg }) => `${loc?.at(-1)}: ${msg}`).join("; ");
  } catch {
    // not JSON: a proxy's page, or nothing at all
  }
  return `${response.status} ${response.statusText}`.trim();
}
