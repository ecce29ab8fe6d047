"use strict";
(() => {
  const collator = new Intl.Collator("en", { numeric: true });
  const value = (body, name, text) => {
    if (!text) return Number(body.dataset[name]);
    const cell = body.querySelector(`[data-axis="${name}"]`);
    return cell ? cell.textContent : body.dataset[name] || "";
  };

  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    for (const head of heads) {
      const name = head.dataset.sort;
      if (!name) continue;
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const text = "text" in head.dataset;
        const down = head.getAttribute("aria-sort") === "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const order = [...table.tBodies].map((body) => [value(body, name, text), Number(body.dataset.number), body]);
        order.sort((a, b) => (down ? -1 : 1) * (text ? collator.compare(a[0], b[0]) : a[0] - b[0]) || a[1] - b[1]);
        table.append(...order.map((entry) => entry[2]));
      });
    }
  }

  const controls = document.getElementById("controls");
  const grid = document.getElementById("grid");
  const bodies = [...grid.tBodies];
  const count = document.getElementById("count");
  const facts = bodies.map((body) => {
    const found = { status: body.dataset.status, verdict: body.dataset.verdict };
    for (const cell of body.querySelectorAll("[data-axis]")) found[cell.dataset.axis] = cell.textContent;
    return found;
  });
  const texts = new Map();
  const textOf = (body) => {
    if (!texts.has(body)) texts.set(body, body.textContent.toLowerCase());
    return texts.get(body);
  };
  const filter = () => {
    const wanted = controls.elements.text.value.trim().toLowerCase();
    const chosen = [...controls.querySelectorAll("select")].filter((select) => select.value !== "");
    let shown = 0;
    bodies.forEach((body, place) => {
      const fits = chosen.every((select) => facts[place][select.name] === select.value) && (!wanted || textOf(body).includes(wanted));
      body.hidden = !fits;
      shown += fits ? 1 : 0;
    });
    count.textContent = `${shown} of ${bodies.length} ${bodies.length === 1 ? "cell" : "cells"} shown`;
  };
  controls.addEventListener("submit", (event) => event.preventDefault());
  controls.addEventListener("change", filter);
  controls.elements.text.addEventListener("input", filter);
  controls.hidden = false;
  filter();

  const reveal = () => {
    const target = location.hash.startsWith("#cell-") ? document.getElementById(location.hash.slice(1)) : null;
    if (!target) return;
    if (target.hidden) {
      controls.reset();
      filter();
    }
    target.querySelector("details").open = true;
    target.scrollIntoView();
    target.focus({ preventScroll: true });
  };
  window.addEventListener("hashchange", reveal);
  reveal();
})();
