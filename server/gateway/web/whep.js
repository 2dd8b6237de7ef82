// One WHEP session: an offer, its answer, and a DELETE on leaving.
// https://datatracker.ietf.org/doc/draft-ietf-wish-whep/

import { errorText } from "./api.js";
import { withToken } from "./auth.js";

const CONNECT_LIMIT_MS = 10_000;
const DISCONNECTED_LIMIT_MS = 4_000;
const LEAVE_LIMIT_MS = 2_000;

// The server answered, and not with a session.
export class WhepRefused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

// The session was agreed on, but no packets get through.
export class WhepUnreachable extends Error {}

export class WhepSession {
  #endpoint;
  #pc;
  #video;
  #audio;
  #plain;
  #location = null;
  #leaving = null;
  #end;

  // Resolves with the reason once a connected session is over.
  ended = new Promise((resolve) => (this.#end = resolve));

  // With `compare` a second video is asked for, which carries the source's own picture.
  constructor(endpoint, { compare }) {
    this.#endpoint = endpoint;
    this.#pc = new RTCPeerConnection();
    const receive = (kind) => this.#pc.addTransceiver(kind, { direction: "recvonly" });
    this.#video = receive("video");
    this.#audio = receive("audio");
    this.#plain = compare ? receive("video") : null;
  }

  get upscaled() {
    return new MediaStream([this.#video.receiver.track, this.#audio.receiver.track]);
  }

  // The server's name for it, null before it has one.
  get id() {
    return this.#location?.pathname.split("/").at(-1) ?? null;
  }

  // Null where the server does not send it.
  get plain() {
    return this.#plain?.currentDirection === "recvonly" ? new MediaStream([this.#plain.receiver.track]) : null;
  }

  async open(signal) {
    const pc = this.#pc;
    const offer = stereo(await pc.createOffer());
    const headers = withToken({ "content-type": "application/sdp" });
    const response = await fetch(this.#endpoint, { method: "POST", headers, body: offer.sdp, signal });
    if (!response.ok) throw new WhepRefused(response.status, await errorText(response));
    this.#location = new URL(response.headers.get("location"), response.url);
    // Candidates are gathered only from here on: now the ICE servers are known.
    pc.setConfiguration({ iceServers: iceServers(response.headers.get("link") ?? "") });
    pc.onicecandidate = ({ candidate }) => this.#trickle(candidate, response.headers.get("etag"));
    await pc.setLocalDescription(offer);
    await pc.setRemoteDescription({ type: "answer", sdp: await response.text() });
    await this.#connected(signal);
    this.#watch();
  }

  // RFC 8840. A lost one is no loss: the server learns our addresses from our connectivity checks too.
  #trickle(candidate, etag) {
    if (!candidate?.candidate || !this.#location) return;
    const lines = this.#pc.localDescription.sdp.split("\r\n");
    const credentials = ["a=ice-ufrag:", "a=ice-pwd:"].map((key) => lines.find((line) => line.startsWith(key)));
    const media = lines.find((line) => line.startsWith("m="));
    const body = [...credentials, media, `a=mid:${candidate.sdpMid}`, `a=${candidate.candidate}`, ""].join("\r\n");
    const headers = withToken({ "content-type": "application/trickle-ice-sdpfrag" });
    if (etag) headers["if-match"] = etag;
    fetch(this.#location, { method: "PATCH", headers, body }).catch(() => {});
  }

  #connected(signal) {
    const pc = this.#pc;
    return new Promise((resolve, reject) => {
      const fail = () => reject(new WhepUnreachable("the server's media port cannot be reached from here"));
      const timer = setTimeout(fail, CONNECT_LIMIT_MS);
      pc.onconnectionstatechange = () => {
        if (pc.connectionState === "connected") resolve(clearTimeout(timer));
        if (pc.connectionState === "failed") fail(clearTimeout(timer));
      };
      signal.addEventListener("abort", () => reject(signal.reason), { once: true });
    });
  }

  #watch() {
    const pc = this.#pc;
    // Closed by the server's goodbye, of which `connectionState` says nothing in Chromium.
    const { transport } = this.#video.receiver;
    const onTransport = () => {
      if (transport.state === "closed" || transport.state === "failed") this.#end("the server ended the session");
    };
    if (transport) onTransport((transport.onstatechange = onTransport));
    let timer;
    pc.onconnectionstatechange = () => {
      clearTimeout(timer);
      if (pc.connectionState === "failed" || pc.connectionState === "closed") this.#end("connection lost");
      if (pc.connectionState === "disconnected") {
        timer = setTimeout(() => this.#end("connection lost"), DISCONNECTED_LIMIT_MS);
      }
    };
  }

  // Of the upscaled video: { frames, dropped, width, height, jitterMs, rttMs }, and since its beginning
  // { bytes, received, lost, heldS }: packets that came and didn't, and for how long frames waited in the browser,
  // from their first packet until they were decoded.
  async counters() {
    const counters = {};
    for (const entry of (await this.#video.receiver.getStats()).values()) {
      if (entry.type === "inbound-rtp") {
        counters.frames = entry.framesDecoded ?? 0;
        counters.dropped = entry.framesDropped ?? 0;
        counters.width = entry.frameWidth;
        counters.height = entry.frameHeight;
        counters.jitterMs = entry.jitter * 1000;
        counters.bytes = entry.bytesReceived;
        counters.received = entry.packetsReceived;
        counters.lost = entry.packetsLost;
        counters.heldS = entry.totalProcessingDelay ?? entry.jitterBufferDelay;
      }
      if (entry.type === "candidate-pair" && entry.nominated && entry.currentRoundTripTime !== undefined) {
        counters.rttMs = entry.currentRoundTripTime * 1000;
      }
    }
    return counters;
  }

  // The DELETE goes first: a closed connection would end the session on the server, and leave nothing to delete.
  close() {
    this.#end("closed");
    if (this.#location) {
      const signal = AbortSignal.timeout(LEAVE_LIMIT_MS);
      const options = { method: "DELETE", headers: withToken({}), keepalive: true, signal };
      this.#leaving = fetch(this.#location, options) // keepalive: it may outlive the page
        .catch(() => {})
        .finally(() => this.#pc.close());
      this.#location = null;
    } else if (!this.#leaving) {
      this.#pc.close();
    }
  }
}

// Of a Link header (RFC 9725, section 4.6).
function iceServers(link) {
  const servers = [];
  for (const [, urls, parameters] of link.matchAll(/<([^>]+)>((?:\s*;\s*[\w-]+=(?:"[^"]*"|[^",;\s]+))*)/g)) {
    const pairs = parameters.matchAll(/([\w-]+)=(?:"([^"]*)"|([^",;\s]+))/g);
    const values = [...pairs].map(([, key, quoted, bare]) => [key, quoted ?? bare]);
    const { rel, username, credential } = Object.fromEntries(values);
    if (rel === "ice-server") servers.push({ urls, username, credential });
  }
  return servers;
}

// Browsers decode Opus to one channel unless the offer asks for two (RFC 7587, section 6.1).
function stereo({ type, sdp }) {
  return { type, sdp: sdp.replaceAll("useinbandfec=1", "useinbandfec=1;stereo=1") };
}
