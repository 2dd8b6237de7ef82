// Keeps one stream playing: WebRTC first, HLS where that cannot work, and again after every loss.
//
// Fires "change" whenever `status` is another.

import { hlsPath } from "./api.js";
import { HlsPlayback, HlsUnsupported } from "./hls.js";
import { WhepRefused, WhepSession, WhepUnreachable } from "./whep.js";

const FIRST_RETRY_MS = 500;
const LONGEST_RETRY_MS = 8_000;
const UNREACHABLE_TRIES = 2;
// A worker is replaced in far less, over the same connection; later than this, the session itself is suspect.
const STALL_LIMIT_MS = 12_000;
// As long as a picture may stand still before it is called still: some cameras send a frame a second.
const STILL_MS = 2_500;
// The server cannot serve us by WebRTC, now or later: no common codec, not our kind of offer.
const REFUSED_FOR_GOOD = [400, 406, 415, 422, 501];

export class Player extends EventTarget {
  #upscaled;
  #plain;
  #playback = null;
  #abort = null;
  #last = null;

  // phase: "idle", "connecting", "playing" or "stopped"; note: what the user should know about it
  status = { phase: "idle", transport: null, comparing: false, note: "" };

  constructor({ upscaled, plain }) {
    super();
    this.#upscaled = upscaled;
    this.#plain = plain;
  }

  play({ id, transport, compare }) {
    this.stop();
    this.#abort = new AbortController();
    this.#run(id, transport, compare, this.#abort.signal);
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

  // Null while nothing plays. To the playback's counters come fps, over the time since the last call, and whether
  // the picture is moving. `expectFrames`: the server has some, so that a standstill is the connection's fault.
  async sample({ expectFrames }) {
    const playback = this.#playback;
    if (!playback) return null;
    const counters = await playback.counters();
    if (playback !== this.#playback || counters.frames === undefined) return null;
    const now = performance.now();
    const last = this.#last ?? { frames: counters.frames, at: now, frameAt: -Infinity, fineAt: now };
    const grew = counters.frames > last.frames;
    this.#last = {
      frames: counters.frames,
      at: now,
      frameAt: grew ? now : last.frameAt,
      fineAt: grew || !expectFrames ? now : last.fineAt,
    };
    if (now - this.#last.fineAt > STALL_LIMIT_MS) this.#interrupt("no picture came any more");
    const fps = now > last.at ? ((counters.frames - last.frames) * 1000) / (now - last.at) : null;
    return { ...counters, fps, moving: now - this.#last.frameAt < STILL_MS };
  }

  #interrupt = () => {};

  async #run(id, transport, compare, signal) {
    const whep = () => this.#whep(`/whep/${encodeURIComponent(id)}`, compare, signal);
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
      const note = compare && !session.plain ? "The server sends no plain picture." : "";
      return { comparing: session.plain !== null, note };
    });
  }

  async #hls(id, note, signal) {
    const url = await hlsPath(id);
    signal.throwIfAborted();
    const playback = new HlsPlayback(this.#upscaled);
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

