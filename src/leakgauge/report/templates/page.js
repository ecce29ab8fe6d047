"use strict";
(() => {
  for (const sweep of document.querySelectorAll(".sweep")) {
    const slider = sweep.querySelector(".slider");
    const range = slider.querySelector("input");
    const output = slider.querySelector("output");
    const steps = [...sweep.querySelectorAll(".step")];
    const show = () => {
      steps.forEach((step, index) => step.classList.toggle("current", index === Number(range.value)));
      const text = steps[Number(range.value)].dataset.text;
      output.textContent = text;
      range.setAttribute("aria-valuetext", text);
    };
    range.addEventListener("input", show);
    sweep.classList.add("live");
    slider.hidden = false;
    show();
  }

  const controls = document.getElementById("controls");
  const list = document.getElementById("cards");
  const cards = [...list.children];
  const count = document.getElementById("count");
  const attack = document.getElementById("attack-filter");
  const sort = document.getElementById("sort");
  const number = (card, name) => Number(card.dataset[name]);
  const orders = {
    order: (a, b) => number(a, "order") - number(b, "order"),
    psnr: (a, b) => number(b, "psnr") - number(a, "psnr"),
    title: (a, b) => a.dataset.title.localeCompare(b.dataset.title),
    seconds: (a, b) => number(b, "seconds") - number(a, "seconds"),
  };
  const arrange = () => {
    const sorted = [...cards].sort((a, b) => orders[sort.value](a, b) || orders.order(a, b));
    list.append(...sorted);
  };
  const filter = () => {
    const verdict = controls.elements.verdict.value;
    const wanted = attack.value.trim().toLowerCase();
    let shown = 0;
    for (const card of cards) {
      const fits = (verdict === "all" || card.dataset.verdict === verdict) && card.dataset.attack.toLowerCase().includes(wanted);
      card.hidden = !fits;
      shown += fits ? 1 : 0;
    }
    count.textContent = `${shown} of ${cards.length} ${cards.length === 1 ? "record" : "records"} shown`;
  };
  controls.addEventListener("submit", (event) => event.preventDefault());
  controls.addEventListener("change", (event) => (event.target === sort ? arrange() : filter()));
  attack.addEventListener("input", filter);
  controls.hidden = false;

  const reveal = () => {
    const target = location.hash.length > 1 ? document.getElementById(location.hash.slice(1)) : null;
    if (target && target.hidden) {
      controls.reset();
      arrange();
      filter();
      target.scrollIntoView();
    }
  };
  window.addEventListener("hashchange", reveal);

  let opened = [];
  window.addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")];
    opened.forEach((item) => { item.open = true; });
  });
  window.addEventListener("afterprint", () => {
    opened.forEach((item) => { item.open = false; });
    opened = [];
  });
})();
