// Small pictures in the list of streams: of those in sight, made anew now and then while the page is looked at.

import { snapshot } from "./api.js";

const EVERY_MS = 10_000;
const LOOK_MS = 500;

export class Thumbnails {
  #seen = new Set(); // items in sight
  #taken = new WeakMap(); // when, by item
  #observer = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) this.#seen[isIntersecting ? "add" : "delete"](target);
  });

  constructor() {
    this.#run();
  }

  // `item` has a canvas. Nothing is shown, and no stream is woken, before there is a picture of it.
  watch(item) {
    this.#observer.observe(item);
  }

  forget(item) {
    this.#observer.unobserve(item);
    this.#seen.delete(item);
  }

  // One after the other, however slow the answers.
  async #run() {
    for (;;) {
      const now = performance.now();
      const due = [...this.#seen].find(
        (item) => item.dataset.picture === "true" && !(now - this.#taken.get(item) < EVERY_MS),
      );
      if (due && !document.hidden) {
        this.#taken.set(due, now);
        await show(due).catch(() => {}); // what was shown before stays
      } else await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
    }
  }
}

async function show(item) {
  const canvas = item.querySelector("canvas");
  const picture = await createImageBitmap(await snapshot(item.dataset.id, canvas.width));
  canvas.height = Math.round((canvas.width * picture.height) / picture.width);
  canvas.getContext("2d").drawImage(picture, 0, 0, canvas.width, canvas.height);
  picture.close();
}
