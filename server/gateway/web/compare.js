// Two renditions beside each other, drawn together: a frame waits until the other video has shown the one of the same
// moment, which is the one with its RTP timestamp.

const MOST_FRAMES = 40; // so far one video may be ahead of the other
const MOST_PIXELS = 64e6; // which is what limits large pictures
const LEAST_FRAMES = 4;

export const canCompare =
  "requestVideoFrameCallback" in HTMLVideoElement.prototype && typeof VideoFrame === "function";

export class Comparison {
  #canvas;
  #context;
  #left;
  #right;
  #shown = null; // the pair on the canvas
  #edge = 0.5;
  #running = false;
  #onPair;

  // `onPair` is called with each pair that is drawn.
  constructor({ left, right, canvas, onPair }) {
    this.#canvas = canvas;
    this.#context = canvas.getContext("2d", { alpha: false });
    this.#left = new Frames(left);
    this.#right = new Frames(right);
    this.#onPair = onPair;
    new ResizeObserver(() => this.#draw()).observe(canvas);
  }

  start() {
    if (this.#running) return;
    this.#running = true;
    this.#left.start((stamp) => this.#pair(stamp));
    this.#right.start((stamp) => this.#pair(stamp));
  }

  stop() {
    this.#running = false;
    this.#left.stop();
    this.#right.stop();
    this.#shown = null;
  }

  // Where the left one ends, as a share of the width.
  set edge(share) {
    this.#edge = share;
    this.#draw();
  }

  #pair(stamp) {
    if (!this.#left.has(stamp) || !this.#right.has(stamp)) return;
    if (this.#shown) {
      this.#left.giveBack(this.#shown.left);
      this.#right.giveBack(this.#shown.right);
    }
    this.#shown = { left: this.#left.take(stamp), right: this.#right.take(stamp) };
    this.#onPair();
    this.#draw();
  }

  // In the screen's own pixels: each picture is scaled once, as the browser would a video.
  #draw() {
    const canvas = this.#canvas;
    const width = Math.round(canvas.clientWidth * devicePixelRatio);
    const height = Math.round(canvas.clientHeight * devicePixelRatio);
    if (!this.#shown || !width || !height) return;
    if (canvas.width !== width) canvas.width = width;
    if (canvas.height !== height) canvas.height = height;
    const { left, right } = this.#shown;
    const context = this.#context;
    context.drawImage(right, 0, 0, width, height);
    context.save();
    context.beginPath();
    context.rect(0, 0, Math.round(width * this.#edge), height);
    context.clip();
    context.drawImage(left, 0, 0, width, height);
    context.restore();
  }
}

// Copies of one video's last frames: the frames themselves belong to its decoder, which has but a few.
class Frames {
  #video;
  #copies = new Map(); // by RTP timestamp, oldest first
  #spare = [];
  #request = 0;

  constructor(video) {
    this.#video = video;
  }

  start(onFrame) {
    const next = (_, metadata) => {
      this.#request = this.#video.requestVideoFrameCallback(next);
      const stamp = this.#copy(metadata);
      if (stamp !== undefined) onFrame(stamp);
    };
    this.#request = this.#video.requestVideoFrameCallback(next);
  }

  stop() {
    this.#video.cancelVideoFrameCallback(this.#request);
    this.#copies.clear();
    this.#spare = [];
  }

  has(stamp) {
    return this.#copies.has(stamp);
  }

  // What is older will find no partner any more.
  take(stamp) {
    for (const [older, copy] of this.#copies) {
      this.#copies.delete(older);
      if (older === stamp) return copy;
      this.giveBack(copy);
    }
    return null;
  }

  giveBack(copy) {
    this.#spare.push(copy);
  }

  // Returns the timestamp of what was copied. The video may already show a later frame than the one that the
  // callback is for; where the browser says it of the frame itself, that is the one that counts.
  #copy({ rtpTimestamp }) {
    const frame = new VideoFrame(this.#video);
    try {
      const stamp = frame.metadata?.().rtpTimestamp ?? rtpTimestamp;
      if (stamp === undefined || this.#copies.has(stamp)) return undefined;
      const { displayWidth: width, displayHeight: height } = frame;
      const most = Math.min(MOST_FRAMES, Math.max(LEAST_FRAMES, Math.floor(MOST_PIXELS / (width * height))));
      while (this.#copies.size >= most) this.giveBack(this.take(this.#copies.keys().next().value));
      const copy = this.#spare.pop() ?? document.createElement("canvas");
      if (copy.width !== width || copy.height !== height) Object.assign(copy, { width, height });
      copy.getContext("2d", { alpha: false }).drawImage(frame, 0, 0, width, height);
      this.#copies.set(stamp, copy);
      return stamp;
    } finally {
      frame.close();
    }
  }
}
