// The latency chart: the median of each stage, stacked, and the 99th percentile of the whole above it.

export const STAGES = [
  ["demux", "#c9748f"],
  ["decode", "#7a8ba3"],
  ["queue", "#e0a458"],
  ["upscale", "#4f9df0"],
  ["encode", "#57b894"],
  ["publish", "#b58bd6"],
];

export const P99_COLOUR = "#d5dbe4";

const SECONDS = 60;
const FONT = "11px system-ui, sans-serif";
const GUTTER = 54; // left of the plot, for the axis

export class StageChart {
  #canvas;
  #columns = []; // { stages: { name: ms }, p99: ms }, one a second, newest last; null where no frame came

  constructor(canvas) {
    this.#canvas = canvas;
    new ResizeObserver(() => this.#draw()).observe(canvas);
  }

  clear() {
    this.#columns = [];
    this.#draw();
  }

  push(column) {
    this.#columns = [...this.#columns, column].slice(-SECONDS);
    this.#draw();
  }

  #draw() {
    const canvas = this.#canvas;
    const { clientWidth: width, clientHeight: height } = canvas;
    if (!width) return;
    canvas.width = width * devicePixelRatio;
    canvas.height = height * devicePixelRatio;
    const context = canvas.getContext("2d");
    context.scale(devicePixelRatio, devicePixelRatio);

    // The stages set the scale; a percentile far above them is drawn at the upper edge.
    const most = 1.7 * Math.max(10, ...this.#columns.map((column) => (column ? total(column.stages) : 0)));
    const tall = (ms) => (ms / most) * height;
    this.#axis(context, width, height, most);
    const step = (width - GUTTER) / SECONDS;
    this.#columns.forEach((column, index) => {
      if (!column) return;
      const x = width - (this.#columns.length - index) * step;
      let y = height;
      for (const [stage, colour] of STAGES) {
        const part = tall(column.stages[stage]);
        context.fillStyle = colour;
        context.fillRect(x, y - part, Math.max(1, step - 1), part);
        y -= part;
      }
      context.fillStyle = P99_COLOUR;
      context.fillRect(x, Math.max(0, height - tall(column.p99) - 1), Math.max(1, step - 1), 2);
    });
  }

  #axis(context, width, height, most) {
    context.font = FONT;
    context.textAlign = "right";
    context.textBaseline = "middle";
    const step = niceStep(most / 4);
    for (let ms = 0; ms < most; ms += step) {
      const y = Math.round(height - (ms / most) * height);
      context.fillStyle = "#262d37";
      context.fillRect(GUTTER, y - 1, width - GUTTER, 1);
      context.fillStyle = "#98a3b2";
      if (ms) context.fillText(`${ms} ms`, GUTTER - 8, y);
    }
  }
}

const total = (stages) => Object.values(stages).reduce((sum, ms) => sum + ms, 0);

function niceStep(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return power * [1, 2, 5, 10].find((nice) => nice * power >= value);
}
