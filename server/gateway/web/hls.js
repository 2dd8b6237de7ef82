// One HLS playback: by hls.js, which is closer to the present, where the server has it and the browser can run it;
// else by the browser itself.

const PLAYLIST_TYPE = "application/vnd.apple.mpegurl";
const HLS_JS = "/web/vendor/hls.mjs";
const NO_HLS_JS = "This browser cannot play HLS by itself, and the server has no hls.js (make web).";
const NO_VIDEO = "This browser can play neither WebRTC nor HLS video.";

// No amount of trying again will help.
export class HlsUnsupported extends Error {}

export class HlsPlayback {
  #video;
  #engine = null;
  #closed = false;
  #onLevels;
  #end;

  // Resolves with the reason once playback cannot go on.
  ended = new Promise((resolve) => (this.#end = resolve));

  // `onLevels` is called once these are known.
  constructor(video, onLevels) {
    this.#video = video;
    this.#onLevels = onLevels;
  }

  // "native" or "hls.js"
  get by() {
    return this.#engine ? "hls.js" : "native";
  }

  // The variants among which `chooseLevel` chooses, the largest first: { index, width, height, bitrate_bps } each. None
  // where the browser plays by itself, which tells nothing of them.
  get levels() {
    const levels = (this.#engine?.levels ?? []).map(({ width, height, bitrate }, index) => {
      return { index, width, height, bitrate_bps: bitrate };
    });
    return levels.reverse();
  }

  // By its index; -1: what the network carries.
  chooseLevel(index) {
    if (this.#engine) this.#engine.nextLevel = index;
  }

  async open(url, signal) {
    this.#video.addEventListener("ended", this.#onEnded);
    const Hls = await loadHlsJs();
    signal.throwIfAborted();
    if (!Hls?.isSupported()) {
      if (!this.#video.canPlayType(PLAYLIST_TYPE)) throw new HlsUnsupported(Hls ? NO_VIDEO : NO_HLS_JS);
      this.#video.addEventListener("error", this.#onError);
      this.#video.src = url;
      return;
    }
    this.#engine = new Hls({ maxLiveSyncPlaybackRate: 1.1, liveSyncOnStallIncrease: 0.3, backBufferLength: 10 });
    this.#engine.on(Hls.Events.ERROR, (_, { fatal, details }) => fatal && this.#end(details));
    this.#engine.on(Hls.Events.MANIFEST_PARSED, () => this.#onLevels());
    this.#engine.loadSource(url);
    this.#engine.attachMedia(this.#video);
  }

  #onEnded = () => this.#end("the playlist has ended");

  #onError = () => this.#end(this.#video.error?.message || "the playlist cannot be played");

  // { by, frames, dropped, width, height, behindS }
  counters() {
    const video = this.#video;
    const { totalVideoFrames, droppedVideoFrames } = video.getVideoPlaybackQuality();
    const counters = { by: this.by, frames: totalVideoFrames, dropped: droppedVideoFrames };
    if (video.videoWidth) Object.assign(counters, { width: video.videoWidth, height: video.videoHeight });
    if (this.#engine) counters.behindS = this.#engine.latency;
    else if (video.seekable.length) counters.behindS = video.seekable.end(0) - video.currentTime;
    return counters;
  }

  // Only once: the element may be another playback's by then.
  close() {
    if (this.#closed) return;
    this.#closed = true;
    this.#video.removeEventListener("error", this.#onError);
    this.#video.removeEventListener("ended", this.#onEnded);
    this.#engine?.destroy();
    this.#engine = null;
    this.#video.removeAttribute("src");
    this.#video.load();
    this.#end("closed");
  }
}

// Null where the server has none.
async function loadHlsJs() {
  try {
    return (await import(HLS_JS)).default;
  } catch {
    return null;
  }
}
