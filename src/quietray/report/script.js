"use strict";
document.documentElement.classList.add("js");

for (const figure of document.querySelectorAll("[data-wipe]")) {
  const stage = figure.querySelector(".stage");
  const well = figure.querySelector(".well");
  const input = figure.querySelector("input");
  const show = () => {
    const at = Math.round(Number(input.value));
    stage.style.setProperty("--at", input.value + "%");
    input.setAttribute("aria-valuetext", at + " % before, " + (100 - at) + " % after");
  };
  const follow = (event) => {
    const box = stage.getBoundingClientRect();
    input.value = Math.min(100, Math.max(0, (100 * (event.clientX - box.left)) / box.width));
    show();
  };
  input.addEventListener("input", show);
  well.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    event.preventDefault();
    well.setPointerCapture(event.pointerId);
    input.focus({ preventScroll: true, focusVisible: false });
    follow(event);
  });
  well.addEventListener("pointermove", (event) => {
    if (well.hasPointerCapture(event.pointerId)) follow(event);
  });
  show();
}

for (const gallery of document.querySelectorAll("[data-zoom]")) {
  const input = gallery.querySelector("input");
  const show = () => {
    gallery.style.setProperty("--zoom", input.value);
    gallery.classList.toggle("near", Number(input.value) > 1);
    input.setAttribute("aria-valuetext", input.value + " times");
  };
  const aim = (event) => {
    const box = event.currentTarget.getBoundingClientRect();
    gallery.style.setProperty("--x", (100 * (event.clientX - box.left)) / box.width + "%");
    gallery.style.setProperty("--y", (100 * (event.clientY - box.top)) / box.height + "%");
  };
  input.addEventListener("input", show);
  for (const frame of gallery.querySelectorAll(".frame")) {
    frame.addEventListener("click", (event) => {
      input.value = Number(input.value) > 1 ? 1 : 4;
      aim(event);
      show();
    });
    frame.addEventListener("pointermove", (event) => {
      if (Number(input.value) > 1) aim(event);
    });
  }
  show();
}

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
