// What the page says of a stream in figures: rows of [key, term, value] out of the API's and the player's numbers.

import { size, withUnit } from "./dom.js";

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
    ["output", "Encoder", output && `${output.encoder}, ${withUnit(output.bitrate_bps / 1e6, "Mbit/s", 1)}`],
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

// `sample` is null while nothing plays.
export function player(over, sample) {
  const rows = [
    ["over", "Over", over],
    ["fps", "Frames per second", sample && withUnit(sample.fps, "", 1)?.trim()],
    ["size", "Picture", sample && size(sample.width, sample.height)],
    ["frames", "Frames decoded", sample?.frames.toLocaleString("en")],
    ["dropped", "Dropped", sample?.dropped.toLocaleString("en")],
  ];
  if (over?.startsWith("HLS")) {
    return [...rows, ["behind", "Behind live", sample && withUnit(sample.behindS, "s", 1)]];
  }
  return [
    ...rows,
    ["lost", "Packets lost", sample?.lost?.toLocaleString("en")],
    ["jitter", "Jitter", sample && withUnit(sample.jitterMs, "ms", 1)],
    ["rtt", "Round trip", sample && withUnit(sample.rttMs, "ms", 1)],
  ];
}

const time = (at) => (at ? new Date(at).toLocaleTimeString() : "–");
const round = (value) => String(Math.round(value * 100) / 100);
