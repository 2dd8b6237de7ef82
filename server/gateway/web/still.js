// Why no new picture is shown: the network on the way here, the source, or the server.

const STILL_MS = 1_000;
const SILENT_MS = 1_500; // of the source, as the server is asked once a second
const NO_ANSWER_MS = 3_000;
const SLOW_FRAMES = 2.5; // intervals that a slow source may take: some cameras send a frame a second

export class StillWatch {
  #shownAt = -Infinity; // the last new frame
  #total = 0; // frames that the server had made when it last answered
  #grewAt = 0;
  #answeredAt = 0;
  #begun = false;

  // A playback begins, of which nothing has been shown.
  reset() {
    this.#begun = false;
  }

  sawFrame() {
    this.#begun = true;
    this.#shownAt = performance.now();
  }

  // The page was hidden, where nothing is shown, or the stream is another.
  forget() {
    this.#shownAt = this.#grewAt = this.#answeredAt = performance.now();
  }

  // Null: it did not.
  serverAnswered(stream) {
    if (stream === null) return;
    const now = (this.#answeredAt = performance.now());
    if (stream.frames.total !== this.#total || stream.state !== "running") this.#grewAt = now;
    this.#total = stream.frames.total;
  }

  // Whether there has been a picture in this playback.
  get begun() {
    return this.#begun;
  }

  // "" while new pictures are shown, or none was yet.
  why(stream) {
    if (!this.#begun) return "";
    const now = performance.now();
    const slowMs = stream.input?.fps ? (SLOW_FRAMES * 1000) / stream.input.fps : 0;
    const still = now - this.#shownAt > Math.max(STILL_MS, slowMs);
    if (still && (stream.state === "unknown" || now - this.#answeredAt > NO_ANSWER_MS)) {
      return "The server does not answer.";
    }
    if (!["running", "idle"].includes(stream.state)) return still ? "The stream is starting again." : "";
    // Where nothing comes from the source the server shows the last picture again and again.
    if (this.#answeredAt - this.#grewAt > Math.max(SILENT_MS, slowMs)) return "The source sends nothing.";
    return still ? "The server sends on, but it does not arrive: your network is too slow or interrupted." : "";
  }
}
