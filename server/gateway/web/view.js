// One stream on the page: its player, its state, and what the server and the player say about it.

import { canCompare, Comparison } from "./compare.js";
import { P99_COLOUR, STAGES, StageChart } from "./chart.js";
import { byId, element, setFacts, setText, size, withUnit } from "./dom.js";
import * as facts from "./facts.js";
import { Player } from "./player.js";
import { named, RenditionMenu } from "./renditions.js";

const WATCH_EVERY_MS = 250;
const CANNOT_COMPARE = "This browser cannot compare: it does not say which frames belong together.";

export class StreamView {
  id = null;
  #stream = null; // as the server last described it
  #player = new Player({ upscaled: byId("upscaled"), plain: byId("plain") });
  #comparison = new Comparison({
    left: byId("plain"),
    right: byId("upscaled"),
    canvas: byId("compared"),
    onPair: () => this.#showPair(),
  });
  #menu = new RenditionMenu(byId("renditions"), () => this.#choose());
  #chart = new StageChart(byId("chart"));

  constructor() {
    for (const [name, colour] of [...STAGES, ["99 %", P99_COLOUR]]) {
      const mark = element("i");
      mark.style.background = colour;
      byId("legend").append(element("li", {}, mark, name, element("b", { text: "–" })));
    }
    this.#player.addEventListener("change", () => this.#showPlayer());
    this.#player.addEventListener("levels", () => this.#showLevels());
    byId("mute").addEventListener("click", () => this.#toggleSound());
    byId("compare").addEventListener("click", () => this.#toggleCompare());
    byId("fullscreen").addEventListener("click", () => this.#toggleFullscreen());
    byId("split-at").addEventListener("input", () => this.#showSplit());
    new ResizeObserver(() => this.#showSplit()).observe(byId("picture"));
    for (const choice of document.getElementsByName("transport")) {
      choice.addEventListener("change", () => this.#play());
    }
    setInterval(() => this.#showStill(), WATCH_EVERY_MS);
  }

  // Of the player's WHEP session, null where it has none.
  get session() {
    return this.#player.session;
  }

  // Null: no stream is shown. Returns whether this is another than before.
  select(id) {
    if (id === this.id) return false;
    this.id = id;
    this.#stream = null;
    this.#chart.clear();
    this.#menu.reset();
    this.#player.still.forget();
    byId("compare").setAttribute("aria-pressed", "false");
    document.getElementsByName("transport")[0].checked = true;
    setText(byId("stream-name"), id ?? "");
    this.#player.stop();
    this.#showStream();
    return true;
  }

  leave() {
    this.#player.stop();
  }

  comeBack() {
    this.#play();
  }

  // Nothing was shown, nor asked of the server, while the page was hidden.
  comeToSight() {
    this.#player.still.forget();
  }

  // `stream` is null where the server did not answer, `viewer` where it knows of none.
  async update(id, stream, viewer = null) {
    if (id !== this.id) return;
    this.#player.still.serverAnswered(stream);
    const came = canPlay(stream) && !canPlay(this.#stream);
    const restarted = stream && this.#stream?.started && stream.started !== this.#stream.started;
    this.#stream = stream ?? { ...(this.#stream ?? UNKNOWN), state: "unknown" };
    if (came && this.#player.status.phase === "idle") this.#play();
    else if (restarted) this.#player.renew("the service was restarted");
    else if (came) this.#player.hurry();
    const sample = await this.#player.sample({ expectFrames: this.#stream.state === "running" });
    if (id !== this.id) return;
    this.#showStream();
    this.#showSample(sample, viewer);
    this.#showStages(stream);
  }

  get #comparing() {
    return byId("compare").getAttribute("aria-pressed") === "true";
  }

  get #transport() {
    return document.querySelector("[name=transport]:checked").value;
  }

  // Where there is no picture yet, `update` plays when it comes.
  #play() {
    const comparing = this.#comparing && this.#transport === "whep";
    byId("compare").setAttribute("aria-pressed", String(comparing));
    this.#player.stop();
    if (!canPlay(this.#stream)) return;
    if (comparing && this.#chosen?.width === this.#stream.input?.width) this.#menu.reset(); // with itself
    const { chosen: rendition } = this.#menu;
    this.#player.play({ id: this.id, transport: this.#transport, compare: comparing, rendition });
  }

  #choose() {
    if (this.#transport === "whep") this.#play();
    else this.#player.chooseLevel(this.#chosen?.index ?? -1);
  }

  // Undefined for Auto.
  get #chosen() {
    return this.#renditions.find(({ name }) => name === this.#menu.chosen);
  }

  // What the menu offers: over HLS what the player knows of, by the names that the server has for it.
  get #renditions() {
    const known = this.#stream?.renditions ?? [];
    if (this.#transport === "whep") return known;
    const same = (level) => known.find(({ width, height }) => width === level.width && height === level.height);
    return this.#player.levels.map((level) => ({ ...level, name: same(level)?.name ?? `${level.height}p` }));
  }

  #toggleCompare() {
    if (!canCompare) {
      setText(byId("player-note"), CANNOT_COMPARE);
      return;
    }
    byId("compare").setAttribute("aria-pressed", String(!this.#comparing));
    document.getElementsByName("transport")[0].checked = true; // the plain picture comes by WebRTC only
    this.#play();
  }

  #toggleSound() {
    const video = byId("upscaled");
    video.muted = !video.muted;
    setText(byId("mute"), soundWord(this.#stream?.input, video.muted));
  }

  #toggleFullscreen() {
    if (document.fullscreenElement) document.exitFullscreen();
    else if (byId("stage").requestFullscreen) byId("stage").requestFullscreen();
    else byId("upscaled").webkitEnterFullscreen?.(); // iPhone: only a video itself
  }

  #showPlayer() {
    const { comparing, note, transport } = this.#player.status;
    byId("split").hidden = byId("plain").hidden = !comparing;
    if (comparing) this.#comparison.start();
    else this.#comparison.stop();
    if (!comparing) byId("compared").hidden = true;
    for (const choice of document.getElementsByName("transport")) {
      if (choice.value === transport) choice.checked = true; // says what really plays, after a fallback too
    }
    setText(byId("player-note"), note);
    this.#showRenditions();
    this.#showOverlay();
  }

  // Until the first pair of frames is there, the upscaled picture alone is shown.
  #showPair() {
    this.#player.sawPair();
    if (!byId("compared").hidden) return;
    byId("compared").hidden = false;
    this.#showSplit();
  }

  #showSplit() {
    const picture = byId("picture");
    const at = byId("split-at");
    const share = Number(at.value);
    const { clientWidth: width } = picture;
    const thumb = parseFloat(getComputedStyle(picture).getPropertyValue("--thumb"));
    picture.style.setProperty("--split", share);
    at.setAttribute("aria-valuetext", `${Math.round(share * 100)} % source`);
    if (width) this.#comparison.edge = (thumb / 2 + (width - thumb) * share) / width;
  }

  #showRenditions() {
    this.#menu.show(this.#renditions);
  }

  #showLevels() {
    this.#showRenditions();
    if (this.#menu.chosen) this.#choose();
  }

  // What covers the picture, and what is written over one that stands still; each is said to screen readers once.
  #showStill() {
    if (document.hidden) return;
    const covered = byId("overlay").classList.contains("shown");
    const why = covered || this.#stream === null ? "" : this.#player.still.why(this.#stream);
    const text = why && `No new picture. ${why}`;
    setText(byId("still"), text);
    setText(byId("said"), covered ? byId("overlay-title").textContent : text);
  }

  #showOverlay() {
    const state = this.#stream?.state ?? "starting";
    const { phase, note } = this.#player.status;
    let title = "";
    let why = this.#stream?.reason ?? "";
    if (state === "failed") title = "This stream failed";
    else if (state === "quarantined") title = "Stopped until it is released";
    else if (state === "reconnecting") title = "The source is lost; trying again";
    else if (phase === "stopped") [title, why] = ["Cannot play here", note];
    else if (phase !== "playing" || !this.#player.still.begun) title = state === "starting" ? "Starting…" : "Connecting…";
    const overlay = byId("overlay");
    overlay.classList.toggle("shown", title !== "");
    overlay.classList.toggle("over", ["failed", "quarantined"].includes(state) || phase === "stopped");
    if (title) setText(byId("overlay-title"), title);
    setText(byId("overlay-why"), why);
  }

  // Before the server has answered, every value is a dash: nothing jumps when it comes.
  #showStream() {
    const stream = this.#stream ?? UNKNOWN;
    const { state, input, output } = stream;
    const running = state === "running";
    byId("stream-state").dataset.state = state;
    setText(byId("stream-state"), facts.STATE_WORDS[state]);

    const on = running && stream.fps > 0 && stream.engine?.super_resolution === true;
    byId("sr").dataset.on = String(on);
    setText(byId("sr-word"), on ? "On" : "Off");
    const why = running ? facts.whyNotItsOwn(stream) : "";
    byId("sr-why").hidden = why === "";
    setText(byId("sr-why"), why);
    const from = input && size(input.width, input.height);
    const to = output && size(output.width, output.height);
    setText(byId("sr-size"), to ? `${from} → ${to}` : "");
    setText(byId("plain-size"), from ?? "");
    const chosen = this.#chosen;
    setText(byId("right-name"), named(chosen?.name ?? "upscaled"));
    setText(byId("upscaled-size"), (chosen ? size(chosen.width, chosen.height) : to) ?? "");
    if (output) byId("picture").style.setProperty("--ratio", pictureRatio(input, output));

    byId("compare").disabled = byId("fullscreen").disabled = state === "failed";
    byId("release").hidden = state !== "quarantined";
    byId("mute").disabled = state === "failed" || input?.audio === false;
    setText(byId("mute"), soundWord(input, byId("upscaled").muted));
    setFacts(byId("sr-facts"), facts.superResolution(stream));
    setFacts(byId("latency"), facts.latency(stream));
    setFacts(byId("server-facts"), facts.server(stream));
    this.#showOutputs(facts.outputs(stream));
    this.#showRenditions();
    this.#showOverlay();
  }

  #showOutputs(rows) {
    byId("outputs").hidden = rows.length === 0;
    setFacts(byId("outputs-facts"), rows.map(({ name, text }, index) => [`output-${index}`, name, text]));
    rows.forEach(({ good }, index) => (byId("outputs-facts").children[index].dataset.good = String(good)));
  }

  #showSample(sample, viewer) {
    const { transport } = this.#player.status;
    const over = { whep: "WebRTC", hls: `HLS${sample?.by ? `, ${sample.by}` : ""}` }[transport];
    const stream = this.#stream ?? UNKNOWN;
    setFacts(byId("player-facts"), facts.player(over, stream, sample, viewer));
    const why = facts.whySmaller(viewer, stream.renditions ?? []);
    byId("player-why").hidden = why === "";
    setText(byId("player-why"), why);
  }

  // A gap in the chart where no frames came.
  #showStages(stream) {
    const live = stream?.state === "running" && stream.fps > 0 && stream.latency_s;
    const medians = STAGES.map(([stage]) => [stage, (stream?.stages_s[stage]?.p50 ?? 0) * 1000]);
    const p99 = (stream?.latency_s?.p99 ?? 0) * 1000;
    this.#chart.push(live ? { stages: Object.fromEntries(medians), p99 } : null);
    const values = [...medians.map(([, ms]) => ms), p99];
    values.forEach((ms, index) => {
      setText(byId("legend").children[index].lastChild, live ? withUnit(ms, "ms", 1) : "–");
    });
  }
}

// An idle stream wakes when somebody watches.
function canPlay(stream) {
  return stream?.state === "running" || stream?.state === "idle";
}

const UNKNOWN = {
  state: "starting",
  reason: "",
  model: null,
  input: null,
  output: null,
  engine: null,
  engine_load: null,
  level: 0,
  stepped: null,
  fps: 0,
  latency_s: null,
  stages_s: {},
  frames: { total: 0, dropped: {} },
  viewers: { whep: 0, hls: 0 },
  recording: null,
  push: [],
  source_reconnects: 0,
  worker: { restarts: 0 },
};

// Of the picture as shown: a source's pixels need not be square.
function pictureRatio(input, output) {
  const [across, down] = input.sample_aspect_ratio.split(":").map(Number);
  return (output.width * across) / (output.height * down);
}

function soundWord(input, muted) {
  if (input && !input.audio) return "No sound";
  return muted ? "Unmute" : "Mute";
}
