"use strict";
document.documentElement.classList.add("js");

const films = JSON.parse(document.getElementById("films")?.textContent ?? "{}");
const within = (value, low, high) => Math.min(high, Math.max(low, value));
const digits = (value, span) => value.toFixed(within(2 - Math.floor(Math.log10(span)), 0, 12)).replace("-", "\u2212");

// The grey levels of a picture, read once; the latest ones are kept.
const read = new Map();
function levels(source) {
  let found = read.get(source);
  if (!found) {
    found = (async () => {
      const image = new Image();
      image.src = source;
      await image.decode();
      const canvas = document.createElement("canvas");
      const [width, height] = [image.naturalWidth, image.naturalHeight];
      Object.assign(canvas, { width, height });
      const context = canvas.getContext("2d", { willReadFrequently: true });
      context.drawImage(image, 0, 0);
      const colours = context.getImageData(0, 0, width, height).data;
      return { width, height, grey: Uint8Array.from({ length: width * height }, (_, place) => colours[4 * place]) };
    })();
    read.set(source, found);
    if (read.size > 80) read.delete(read.keys().next().value);
  }
  return found;
}

// Pictures side by side or one above the other: the same place, the same greys.
function viewer(root) {
  const [low, high] = root.dataset.range.split(",").map(Number);
  const find = (what) => root.querySelector(what);
  const choices = [...root.querySelectorAll("[data-mode]")];
  const view = { low, high, mode: choices[0].dataset.mode, zoom: 1, x: 0.5, y: 0.5 };
  const scenes = [...root.querySelectorAll("[data-scene]")].map((element) => scene(root, element, view, { low, high }));
  const widest = scenes.reduce(
    (all, { film }) => (film ? [Math.min(all[0], film.range[0]), Math.max(all[1], film.range[1])] : all),
    [low, high],
  );
  const span = widest[1] - widest[0];
  const [level, width, range] = [find("[data-level]"), find("[data-width]"), find(".range")];

  const show = () => {
    for (const one of scenes) one.show();
    const text = digits(view.low, view.high - view.low) + " to " + digits(view.high, view.high - view.low);
    const half = digits((view.high - view.low) / 2, view.high - view.low);
    range.textContent = (view.mode === "difference" ? "\u00b1" + half : text) + " " + root.dataset.unit;
    level.setAttribute("aria-valuetext", digits((view.low + view.high) / 2, span) + " " + root.dataset.unit);
    width.setAttribute("aria-valuetext", digits(view.high - view.low, span) + " " + root.dataset.unit);
    find(".zoom output").textContent = (view.zoom < 10 ? view.zoom.toFixed(1).replace(".0", "") : Math.round(view.zoom)) + "\u00d7";
    for (const choice of choices) {
      const on = choice.dataset.mode === view.mode;
      choice.setAttribute("aria-checked", String(on));
      choice.tabIndex = on ? 0 : -1;
    }
  };
  const greys = () => {
    const [middle, wide] = [widest[0] + (span * level.value) / 1000, (span * width.value) / 1000];
    Object.assign(view, { low: middle - wide / 2, high: middle + wide / 2 });
    show();
  };
  const reset = () => {
    level.value = (1000 * ((low + high) / 2 - widest[0])) / span;
    width.value = (1000 * (high - low)) / span;
    Object.assign(view, { low, high });
    show();
  };
  // Enlarges around a place of the stage that stays where it is, both in shares of its size.
  const zoom = (factor, across = 0.5, down = 0.5) => {
    const next = within(view.zoom * factor, 1, 32);
    look(view.x + (across - 0.5) * (1 / view.zoom - 1 / next), view.y + (down - 0.5) * (1 / view.zoom - 1 / next), next);
  };
  const look = (x, y, next = view.zoom) => {
    const edge = 0.5 / next;
    Object.assign(view, { zoom: next, x: within(x, edge, 1 - edge), y: within(y, edge, 1 - edge) });
    show();
  };
  const at = (stage, event) => {
    const box = stage.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height, box];
  };

  level.addEventListener("input", greys);
  width.addEventListener("input", greys);
  find("[data-reset]").addEventListener("click", reset);
  find("[data-fit]").addEventListener("click", () => look(0.5, 0.5, 1));
  for (const button of root.querySelectorAll("[data-zoom-by]"))
    button.addEventListener("click", () => zoom(Number(button.dataset.zoomBy)));
  choices.forEach((choice, place) => {
    const take = (one) => {
      view.mode = one.dataset.mode;
      show();
    };
    choice.addEventListener("click", () => take(choice));
    choice.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[event.key];
      if (!step) return;
      event.preventDefault();
      const next = choices[(place + step + choices.length) % choices.length];
      take(next);
      next.focus();
    });
  });

  for (const one of scenes)
    for (const stage of one.stages) {
      const pane = stage.closest("[tabindex]");
      let held = null;
      pane.addEventListener("pointerdown", (event) => {
        if (event.button !== 0) return;
        event.preventDefault();
        pane.setPointerCapture(event.pointerId);
        pane.focus({ preventScroll: true, focusVisible: false });
        const [across, , box] = at(stage, event);
        const wipes = view.mode === "wipe" && (view.zoom === 1 || Math.abs(across - one.at()) * box.width < 24);
        held = { wipes, moved: false, x: event.clientX, y: event.clientY, from: [view.x, view.y] };
        if (wipes) one.wipe(100 * across);
      });
      pane.addEventListener("pointermove", (event) => {
        if (!held) return;
        const [across, , box] = at(stage, event);
        const [right, down] = [event.clientX - held.x, event.clientY - held.y];
        held.moved ||= Math.hypot(right, down) > 4;
        if (held.wipes) one.wipe(100 * across);
        else look(held.from[0] - right / box.width / view.zoom, held.from[1] - down / box.height / view.zoom);
      });
      pane.addEventListener("pointerup", (event) => {
        const [across, down] = at(stage, event);
        if (held && !held.moved && one.gallery && view.zoom === 1) zoom(4, across, down);
        held = null;
      });
      pane.addEventListener("pointercancel", () => (held = null));
      pane.addEventListener("dblclick", () => look(0.5, 0.5, 1));
      pane.addEventListener(
        "wheel",
        (event) => {
          if (!event.ctrlKey && document.activeElement !== pane) return; // the page scrolls
          event.preventDefault();
          const [across, down] = at(stage, event);
          zoom(Math.exp(-within(event.deltaY, -100, 100) / 300), within(across, 0, 1), within(down, 0, 1));
        },
        { passive: false },
      );
      pane.addEventListener("keydown", (event) => {
        if (event.target !== pane || event.altKey || event.ctrlKey || event.metaKey) return;
        const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
        if (event.key === "+" || event.key === "=") zoom(1.5);
        else if (event.key === "-") zoom(1 / 1.5);
        else if (event.key === "0") look(0.5, 0.5, 1);
        else if (event.key === "PageUp") one.go(-1);
        else if (event.key === "PageDown") one.go(1);
        else if (step && view.zoom > 1) look(view.x + (0.1 * step[0]) / view.zoom, view.y + (0.1 * step[1]) / view.zoom);
        else if (step && step[0] && view.mode === "wipe") one.wipe(100 * one.at() + step[0]);
        else return;
        event.preventDefault();
      });
    }
  reset();
}

// One slice after the other in one direction, as pictures before and after or of every method.
function scene(root, element, view, first) {
  const film = films[element.dataset.scene];
  const stages = [...element.querySelectorAll("[data-stage]")];
  const layers = [...element.querySelectorAll("[data-picture]")].map((layer) => {
    const canvas = layer.appendChild(document.createElement("canvas"));
    return { layer, canvas, name: layer.dataset.picture, image: layer.querySelector(".picture") };
  });
  const gallery = element.dataset.scene === "gallery";
  const wiper = element.querySelector(".wipe input");
  const slides = element.querySelector(".slides");
  const [slider, told] = [slides.querySelector("input"), slides.querySelector("output")];
  const middle = film ? Math.floor(film.places.length / 2) : 0;
  let [slice, turn] = [middle, 0];

  // The middle slice is in the page at its full resolution; one that is averaged does not take its place.
  const source = (one) =>
    film && (slice !== middle || film.factor === 1)
      ? { uri: film.pictures[one.name][slice], range: film.range }
      : { uri: one.image.src, range: [first.low, first.high] };
  const subtracted = () => (view.mode === "difference" ? layers.find((one) => one.name === (gallery ? "fbp" : "before")) : null);

  async function paint() {
    const mine = ++turn;
    const minuend = subtracted();
    const plain = slice === middle && view.low === first.low && view.high === first.high && !minuend;
    if (plain) {
      for (const one of layers) one.layer.classList.remove("painted");
      return;
    }
    const shown = layers.map((one) => ({ one, ...source(one) }));
    const found = await Promise.all(shown.map(({ uri }) => levels(uri)));
    if (mine !== turn) return;
    const from = minuend ? layers.indexOf(minuend) : -1;
    shown.forEach(({ one, range }, place) => {
      const { width, height, grey } = found[place];
      const [step, span] = [(range[1] - range[0]) / 255, view.high - view.low];
      const subtract = minuend && one !== minuend && found[from].grey.length === grey.length;
      const picture = new ImageData(width, height);
      const out = new Uint32Array(picture.data.buffer);
      const shade = (share) => (255 << 24) | (Math.round(255 * within(share, 0, 1)) * 0x010101);
      if (subtract) {
        const table = Uint32Array.from({ length: 511 }, (_, value) => shade(0.5 + ((value - 255) * step) / span));
        const noisy = found[from].grey;
        for (let at = 0; at < out.length; at++) out[at] = table[noisy[at] - grey[at] + 255];
      } else {
        const table = Uint32Array.from({ length: 256 }, (_, value) => shade((range[0] + value * step - view.low) / span));
        for (let at = 0; at < out.length; at++) out[at] = table[grey[at]];
      }
      Object.assign(one.canvas, { width, height });
      one.canvas.getContext("2d", { willReadFrequently: true }).putImageData(picture, 0, 0);
      one.layer.classList.add("painted");
    });
  }

  function show() {
    for (const { layer } of layers) {
      const [right, down] = [50 - 100 * view.x * view.zoom, 50 - 100 * view.y * view.zoom];
      layer.style.transform = view.zoom === 1 ? "" : `translate(${right}%, ${down}%) scale(${view.zoom})`;
    }
    element.classList.toggle("near", view.zoom > 1);
    element.classList.toggle("elsewhere", slice !== middle);
    element.dataset.shows = view.mode;
    if (wiper) {
      const before = { before: 100, wipe: Number(wiper.value) }[view.mode] ?? 0;
      for (const stage of stages) stage.style.setProperty("--at", before + "%");
      const at = Math.round(before);
      wiper.setAttribute("aria-valuetext", at + " % before, " + (100 - at) + " % after");
      element.querySelector(".after .tag").textContent = view.mode === "difference" ? "before \u2212 after" : "after";
      const bar = element.querySelector(".bar");
      if (bar) {
        const share = [1, 0.5, 0.2, 0.1, 0.05, 0.02].find((one) => Number(bar.dataset.percent) * view.zoom * one <= 30) ?? 0.02;
        bar.style.setProperty("--bar", Number(bar.dataset.percent) * view.zoom * share);
        const [size, ...unit] = bar.dataset.length.split(" ");
        bar.querySelector("b").textContent = [Number((Number(size) * share).toPrecision(3)), ...unit].join(" ");
      }
    }
    if (film) {
      told.textContent = film.places[slice];
      slider.setAttribute("aria-valuetext", film.places[slice] + ", " + (slice + 1) + " of " + film.places.length);
    }
    paint();
  }
  const go = (step) => {
    if (!film) return;
    slice = within(slice + step, 0, film.places.length - 1);
    slider.value = slice;
    show();
  };
  const wipe = (before) => {
    wiper.value = within(before, 0, 100);
    show();
  };
  if (film && film.places.length > 1) {
    slides.hidden = false;
    Object.assign(slider, { max: film.places.length - 1, value: middle });
    slider.addEventListener("input", () => go(Number(slider.value) - slice));
  }
  wiper?.addEventListener("input", show);
  return { element, film, stages, gallery, show, go, wipe, at: () => Number(wiper.value) / 100 };
}

for (const root of document.querySelectorAll("[data-viewer]")) viewer(root);

const tabs = [...document.querySelectorAll("[role=tab]")];
const select = (chosen) => {
  for (const tab of tabs) {
    const on = tab === chosen;
    tab.setAttribute("aria-selected", String(on));
    tab.tabIndex = on ? 0 : -1;
    document.getElementById(tab.getAttribute("aria-controls")).hidden = !on;
  }
};
tabs.forEach((tab, place) => {
  tab.addEventListener("click", () => select(tab));
  tab.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const next = tabs[(place + step + tabs.length) % tabs.length];
    select(next);
    next.focus();
  });
});
if (tabs.length) select(tabs[0]);

let opened = [];
addEventListener("beforeprint", () => {
  opened = [...document.querySelectorAll("details:not([open])")];
  for (const part of opened) part.open = true;
});
addEventListener("afterprint", () => {
  for (const part of opened) part.open = false;
});
