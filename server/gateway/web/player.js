// Keeps one stream playing: WebRTC first, HLS where that cannot work, and again after every loss.
//
// Fires "change" whenever `status` is another, or the first picture is shown; "levels" once those are known.

import { hlsPath } from "./api.js";
import { HlsPlayback, HlsUnsupported } from "./hls.js";
import { StillWatch } from "./still.js";
import { WhepRefused, WhepSession, WhepUnreachable } from "./whep.js";

const FIRST_RETRY_MS = 500;
const LONGEST_RETRY_MS = 8_000;
const UNREACHABLE_TRIES = 2;
// A worker is replaced in far less, over the same connection; later than this, the session itself is suspect.
const STALL_LIMIT_MS = 12_000;
// The server cannot serve us by WebRTC, now or later: no common codec, not our kind of offer.
const REFUSED_FOR_GOOD = [400, 406, 415, 422, 501];

export class Player extends EventTarget {
  #upscaled;
  #plain;
  #playback = null;
  #abort = null;
  #last = null;
  #paired = false;

  // phase: "idle", "connecting", "playing" or "stopped"; note: what the user should know about it
  status = { phase: "idle", transport: null, comparing: false, note: "" };

  // Hears of each new frame, where the browser tells.
  still = new StillWatch();

  constructor({ upscaled, plain }) {
    super();
    this.#upscaled = upscaled;
    this.#plain = plain;
    if (upscaled.requestVideoFrameCallback) this.#onFrame();
  }

  // `rendition` is for WebRTC: the name of one, or "" for what the network carries. `compare`: the source's own beside
  // it.
  play({ id, transport, compare, rendition }) {
    this.stop();
    this.#abort = new AbortController();
    const query = rendition ? `?rendition=${encodeURIComponent(rendition)}` : "";
    this.#run(id, transport, { compare, endpoint: `/whep/${encodeURIComponent(id)}${query}` }, this.#abort.signal);
  }

  // The WHEP session's id; null over HLS, or while none is there.
  get session() {
    return this.#playback?.id ?? null;
  }

  // HLS's; see HlsPlayback.
  get levels() {
    return this.#playback?.levels ?? [];
  }

  chooseLevel(index) {
    this.#playback?.chooseLevel?.(index);
  }

  // Two pictures are compared: from here on a frame alone is none that is seen.
  sawPair() {
    this.#paired = true;
    this.#saw();
  }

  #onFrame = () => {
    this.#upscaled.requestVideoFrameCallback(this.#onFrame);
    if (this.#playback && !this.#paired) this.#saw();
  };

  #saw() {
    const first = !this.still.begun;
    this.still.sawFrame();
    if (first) this.dispatchEvent(new Event("change"));
  }

  stop() {
    this.#abort?.abort();
    this.#abort = null;
    this.#playback?.close(); // at once: a page that is being left runs nothing later
    this.#playback = null;
    this.#upscaled.srcObject = null;
    this.#plain.srcObject = null;
    this.#set({ phase: "idle", transport: null, comparing: false, note: "" });
  }

  // There is reason to think that the next try succeeds: no more waiting for it.
  hurry = () => {};

  // What plays is known to be over, whether or not the transport has noticed.
  renew(why) {
    this.#interrupt(why);
    this.hurry();
  }

  // Null while nothing plays. To the playback's counters come those over the time since the last call: fps, bps, loss
  // (of packets, a share) and waitS, for how long a frame waited in the browser. `expectFrames`: the server has some,
  // so that a standstill is the connection's fault.
  async sample({ expectFrames }) {
    const playback = this.#playback;
    if (!playback) return null;
    const counters = await playback.counters();
    if (playback !== this.#playback || counters.frames === undefined) return null;
    const now = performance.now();
    const last = this.#last ?? { ...counters, at: now, fineAt: now };
    const grew = counters.frames > last.frames;
    if (grew && !this.#upscaled.requestVideoFrameCallback) this.#saw();
    this.#last = { ...counters, at: now, fineAt: grew || !expectFrames ? now : last.fineAt };
    if (now - this.#last.fineAt > STALL_LIMIT_MS) this.#interrupt("no picture came any more");
    return { ...counters, ...since(last, this.#last) };
  }

  #interrupt = () => {};

  async #run(id, transport, { endpoint, compare }, signal) {
    const whep = () => this.#whep(endpoint, compare, signal);
    let note = transport === "whep" ? await this.#keepPlaying(signal, "whep", whep) : "";
    const hls = () => this.#hls(id, note, signal);
    if (!signal.aborted) note = await this.#keepPlaying(signal, "hls", hls, note);
    if (!signal.aborted) this.#set({ phase: "stopped", note });
  }

  // Plays until aborted, or until it is clear that this transport will not do: then returns why.
  async #keepPlaying(signal, transport, once, note = "") {
    let wait = FIRST_RETRY_MS;
    let unreachable = 0;
    this.#set({ phase: "connecting", transport, comparing: false, note });
    while (!signal.aborted) {
      let why;
      try {
        why = await once();
        wait = FIRST_RETRY_MS;
        unreachable = 0;
      } catch (error) {
        why = error.message;
        if (error instanceof HlsUnsupported) return why;
        if (error instanceof WhepUnreachable && ++unreachable >= UNREACHABLE_TRIES) {
          return `Playing HLS instead of WebRTC: ${why}.`;
        }
        if (error instanceof WhepRefused && REFUSED_FOR_GOOD.includes(error.status)) {
          return `Playing HLS instead of WebRTC: ${why}`;
        }
      }
      if (signal.aborted) break;
      this.#set({ phase: "connecting", note: note || `Trying again: ${why}` });
      await this.#sleep(wait * (0.75 + Math.random() / 2), signal);
      wait = Math.min(wait * 2, LONGEST_RETRY_MS);
    }
    return "";
  }

  async #whep(endpoint, compare, signal) {
    if (!globalThis.RTCPeerConnection) throw new WhepRefused(501, "this browser has no WebRTC.");
    const session = new WhepSession(endpoint, { compare });
    return this.#during(session, signal, async () => {
      await session.open(signal);
      this.#upscaled.srcObject = session.upscaled;
      this.#plain.srcObject = session.plain;
      const note = compare && !session.plain ? "The server does not send the source's own picture." : "";
      return { comparing: session.plain !== null, note };
    });
  }

  async #hls(id, note, signal) {
    const url = await hlsPath(id);
    signal.throwIfAborted();
    const playback = new HlsPlayback(this.#upscaled, () => this.dispatchEvent(new Event("levels")));
    this.#upscaled.srcObject = null;
    return this.#during(playback, signal, async () => {
      await playback.open(url, signal);
      return { comparing: false, note };
    });
  }

  // Opens, plays until the end, and closes whatever happens. Resolves with why it ended.
  async #during(playback, signal, open) {
    this.#playback = playback;
    this.#last = null;
    this.#paired = false;
    this.still.reset();
    try {
      const status = await open();
      for (const video of [this.#upscaled, this.#plain]) {
        video.play().catch(() => {}); // a browser's policy may refuse; its own controls are not ours to fight
      }
      this.#set({ phase: "playing", ...status });
      const interrupted = new Promise((resolve) => (this.#interrupt = resolve));
      return await Promise.race([playback.ended, interrupted]);
    } finally {
      this.#interrupt = () => {};
      playback.close();
      if (this.#playback === playback) this.#playback = null;
    }
  }

  #sleep(ms, signal) {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.hurry = () => resolve(clearTimeout(timer));
      signal.addEventListener("abort", this.hurry, { once: true });
    });
  }

  #set(change) {
    const before = JSON.stringify(this.status);
    this.status = { ...this.status, ...change };
    if (JSON.stringify(this.status) !== before) this.dispatchEvent(new Event("change"));
  }
}

// Rates between two moments' counters; null where there is nothing to divide by.
function since(last, now) {
  const per = (key, by) => (now[by] > last[by] ? (now[key] - last[key]) / (now[by] - last[by]) : null);
  const perSecond = (key) => (now.at > last.at ? ((now[key] - last[key]) * 1000) / (now.at - last.at) : null);
  const lost = now.lost - last.lost;
  const packets = now.received - last.received + lost;
  return {
    fps: perSecond("frames"),
    bps: 8 * perSecond("bytes"),
    loss: packets > 0 ? Math.max(0, lost) / packets : null,
    waitS: per("heldS", "frames"),
  };
}
