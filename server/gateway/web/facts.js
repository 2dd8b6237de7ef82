// What the page says of a stream in figures: rows of [key, term, value] out of the API's and the player's numbers.

import { megabits, size, withUnit } from "./dom.js";

export const STATE_WORDS = {
  starting: "Starting",
  running: "Live",
  idle: "Idle",
  reconnecting: "Reconnecting",
  quarantined: "Quarantined",
  failed: "Failed",
  stopped: "Stopped",
  unknown: "No answer",
};

const NO_QUEUE_S = 0.05;

export function superResolution(stream) {
  const { input, output, engine, model } = stream;
  const unmeasured =
    { reference: "is the reference", bicubic: "none: bicubic" }[engine?.backend] ?? "not measured";
  return [
    ["model", "Model", engine?.model ?? model],
    ["backend", "Backend", engine?.backend],
    ["precision", "Precision", engine?.precision],
    ["parity", "Parity to float32", engine && (withUnit(engine.parity_db, "dB", 1) ?? unmeasured)],
    ["input", "Source", input && `${input.codec}${input.fps ? `, ${round(input.fps)} fps` : ""}`],
    ["decoder", "Decoder", input?.decoder],
    ["output", "Encoder", output && `${output.encoder}, ${megabits(output.bitrate_bps)}`],
  ];
}

// Why another network than the stream's own upscales, or none; empty where its own does.
export function whyNotItsOwn({ model, engine, engine_load: load, level, stepped }) {
  if (level > 0) return `${engine?.model} instead of ${model}, since ${time(stepped?.at)}: ${stepped?.reason}`;
  if (engine?.super_resolution !== false) return "";
  if (load?.state === "failed") return `Bicubic: ${load.model} can't be had. ${load.detail}`;
  if (load?.state !== "loading") return "Bicubic";
  const what = load.detail ? ` (${load.detail})` : "";
  return `Bicubic until ${load.model} is there: loading for ${withUnit(load.elapsed_s, "s", 0)}${what}`;
}

// From the arrival of a frame at the server to its first bytes on the way to viewers.
export function latency({ latency_s: quantiles }) {
  return ["p50", "p95", "p99"].map((key) => {
    const seconds = quantiles?.[key];
    const long = seconds >= 9.95;
    const text = long ? withUnit(seconds, "s", 1) : withUnit(seconds * 1000, "ms", seconds < 0.0995 ? 1 : 0);
    return [key, `${key} latency`, text];
  });
}

export function server(stream) {
  const { frames, viewers, worker } = stream;
  const dropped = Object.values(frames.dropped).reduce((sum, count) => sum + count, 0);
  return [
    ["fps", "Frames per second", stream.fps.toFixed(1)],
    ["frames", "Frames", frames.total.toLocaleString("en")],
    ["dropped", "Dropped", dropped.toLocaleString("en")],
    ["viewers", "Viewers", `${viewers.whep} WebRTC, ${viewers.hls} HLS`],
    ["reconnects", "Source reconnects", String(stream.source_reconnects)],
    ["restarts", "Worker restarts", String(worker.restarts)],
  ];
}

// What becomes of the stream beside its viewers, each: a word for it, whether it goes well, and what to say.
export function outputs({ recording, push }) {
  const rows = push.map(({ target, connected, reason }) => ({
    name: target,
    word: connected ? "Pushed" : "Push fails",
    good: connected,
    text: connected ? "Connected" : `Not connected: ${reason}`,
  }));
  if (recording === null) return rows;
  const { on, since, reason } = recording;
  const text = on ? `On, since ${moment(since)}` : `Stopped ${moment(since)}: ${reason}`;
  return [{ name: "Recording", word: on ? "Recorded" : "Not recorded", good: on, text }, ...rows];
}

// `sample` is null while nothing plays, `viewer` (what the server knows of it) wherever it knows none.
export function player(over, stream, sample, viewer) {
  const rows = [
    ["over", "Over", over],
    ["behind", "Behind live", withUnit(behindS(stream, sample), "s", sample?.by ? 1 : 2)],
    ["fps", "Frames per second", sample && withUnit(sample.fps, "", 1)?.trim()],
    ["size", "Picture", sample && size(sample.width, sample.height)],
    ["frames", "Frames decoded", sample?.frames.toLocaleString("en")],
    ["dropped", "Dropped", sample?.dropped.toLocaleString("en")],
  ];
  if (over?.startsWith("HLS")) return rows;
  const rttMs = sample?.rttMs ?? (viewer?.rtt_s ?? NaN) * 1000;
  return [
    ...rows,
    ["rendition", "Rendition", viewer?.rendition],
    ["sent", "Sent", megabits(viewer?.sent_bps)],
    ["rate", "Arriving", megabits(viewer?.delivered_bps ?? sample?.bps)],
    ["carries", "Network carries", carries(viewer)],
    ["loss", "Packets lost", withUnit((viewer?.loss ?? sample?.loss) * 100, "%", 1)],
    ["rtt", "Round trip", withUnit(rttMs, "ms", 1)],
    ["jitter", "Jitter", sample && withUnit(sample.jitterMs, "ms", 1)],
  ];
}

// How old what is shown is: what the server took, and what the player is behind the end of the playlist; by WebRTC, half
// the way there and back, and what the browser holds back. NaN where that isn't known, or nothing moves.
function behindS(stream, sample) {
  if (!sample?.fps) return NaN;
  return stream.latency_s?.p50 + (sample.behindS ?? sample.rttMs / 2000 + sample.waitS);
}

// Why it is not the largest rendition; empty where it is, or one was chosen.
export function whySmaller(viewer, renditions) {
  if (!viewer?.reason || viewer.rendition === (renditions[0]?.name ?? "upscaled")) return "";
  return `Not the largest picture: ${viewer.reason}`;
}

// Estimated: where nothing waits on the way, more might fit than is sent.
function carries(viewer) {
  if (!viewer) return null;
  const { estimate_bps, delivered_bps, queue_s } = viewer;
  if (estimate_bps || !delivered_bps) return megabits(estimate_bps);
  return (queue_s < NO_QUEUE_S ? "≥ " : "") + megabits(delivered_bps);
}

const time = (at) => (at ? new Date(at).toLocaleTimeString() : "–");
const moment = (at) => {
  const date = new Date(at);
  const today = date.toDateString() === new Date().toDateString();
  return today ? date.toLocaleTimeString() : date.toLocaleString();
};
const round = (value) => String(Math.round(value * 100) / 100);
