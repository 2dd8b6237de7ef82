// The menu of renditions: Auto, and each that there is. Hidden where there is no choice.

import { element, megabits, setText, size } from "./dom.js";

export class RenditionMenu {
  #label;
  #select;
  #onChoose;
  #listed = "";

  // `onChoose` is called with another choice.
  constructor(label, onChoose) {
    this.#label = label;
    this.#select = label.querySelector("select");
    this.#onChoose = onChoose;
    this.#select.addEventListener("change", onChoose);
  }

  // The name of a rendition, or "" for Auto.
  get chosen() {
    return this.#select.value;
  }

  reset() {
    this.#select.value = "";
  }

  // Each of `renditions`: { name, width, height, bitrate_bps }. What is chosen stays so while it is there, or while none
  // is known; where it has gone that is a choice of Auto.
  show(renditions) {
    this.#label.hidden = renditions.length < 2;
    if (!renditions.length) return;
    const listed = JSON.stringify(renditions.map(({ name }) => name));
    if (listed !== this.#listed) {
      this.#listed = listed;
      const { chosen } = this;
      const names = ["", ...renditions.map(({ name }) => name)];
      this.#select.replaceChildren(...names.map((value) => element("option", { value, text: value || "Auto" })));
      const gone = !names.includes(chosen);
      this.#select.value = gone ? "" : chosen;
      if (gone) this.#onChoose();
    }
    renditions.forEach((rendition, index) => setText(this.#select.options[index + 1], describe(rendition)));
  }
}

export const named = (name) => name[0].toUpperCase() + name.slice(1);

function describe({ name, width, height, bitrate_bps }) {
  return [named(name), size(width, height), bitrate_bps ? megabits(bitrate_bps) : null].filter(Boolean).join(" · ");
}
