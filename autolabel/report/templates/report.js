"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const grid = document.getElementById("cards");
  const tip = document.getElementById("tip");
  if (!grid) return;

  const $ = (id) => document.getElementById(id);
  const cards = [...grid.querySelectorAll(".card")].map((element, index) => ({
    element,
    index,
    ...data.cards[index],
    marks: data.cards[index].shapes.map((_, k) => [...element.querySelectorAll(`[data-shape="${k}"]`)]),
  }));
  const state = { classes: new Set(), score: 0, text: "", kind: "all", sort: "path" };
  const CROWDED = 6;
  let visible = [];

  // ---- filters -------------------------------------------------------------------------------------------------
  const passes = (shape) => shape.score >= state.score && (!state.classes.size || state.classes.has(shape.label));

  function wanted(card, count) {
    if (state.text && !card.path.toLowerCase().includes(state.text)) return false;
    if (state.kind === "clean" && card.shapes.length) return false;
    if (state.kind === "found" && !count) return false;
    if (state.kind === "differ" && !card.shapes.some((shape) => shape.differs && passes(shape))) return false;
    return !state.classes.size || count > 0;
  }

  function apply() {
    const totals = data.classes.map(() => 0);
    let boxes = 0;
    visible = [];
    for (const card of cards) {
      let count = 0;
      card.shapes.forEach((shape, k) => {
        const on = passes(shape);
        count += on;
        for (const mark of card.marks[k]) mark.classList.toggle("off", !on);
      });
      const show = wanted(card, count);
      card.element.hidden = !show;
      card.element.classList.toggle("crowded", count > CROWDED);
      const tag = card.element.querySelector(".tag.count");
      tag.textContent = count || (card.shapes.length ? "0" : "clean");
      for (const shape of card.shapes) totals[shape.label] += shape.score >= state.score;
      if (show) {
        visible.push(card);
        boxes += count;
      }
    }
    for (const badge of document.querySelectorAll("[data-count]")) badge.textContent = totals[badge.dataset.count];
    $("shown").textContent = `${visible.length} of ${cards.length} images · ${boxes} annotations`;
    $("nothing").hidden = visible.length > 0;
    arrange();
  }

  const orders = {
    path: (a, b) => a.index - b.index,
    differ: (a, b) => b.differing - a.differing || a.index - b.index,
    low: (a, b) => a.lowest - b.lowest || a.index - b.index,
    many: (a, b) => b.shapes.length - a.shapes.length || a.index - b.index,
  };
  let arranged = "path";
  function arrange() {
    visible.sort(orders[state.sort]);
    if (arranged === state.sort) return;
    arranged = state.sort;
    const filler = grid.querySelector(".filler");
    grid.append(...[...cards].sort(orders[state.sort]).map((card) => card.element), filler);
  }

  $("search").addEventListener("input", (event) => { state.text = event.target.value.trim().toLowerCase(); apply(); });
  $("score").addEventListener("input", (event) => {
    state.score = Number(event.target.value);
    $("score-value").textContent = state.score.toFixed(2);
    apply();
  });
  for (const id of ["kind", "sort"]) $(id).addEventListener("change", (event) => { state[id] = event.target.value; apply(); });
  for (const button of document.querySelectorAll("[data-class]")) {
    button.addEventListener("click", () => {
      const label = Number(button.dataset.class);
      const on = !state.classes.delete(label);
      if (on) state.classes.add(label);
      button.setAttribute("aria-pressed", on);
      apply();
    });
  }
  function toggle(what) {
    const button = document.querySelector(`[data-toggle="${what}"]`);
    const on = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", on);
    document.body.classList.toggle(`no-${what}`, !on);
  }
  for (const button of document.querySelectorAll("[data-toggle]")) button.addEventListener("click", () => toggle(button.dataset.toggle));
  $("reset").addEventListener("click", () => {
    Object.assign(state, { score: 0, text: "", kind: "all" });
    state.classes.clear();
    for (const button of document.querySelectorAll("[data-class]")) button.setAttribute("aria-pressed", false);
    $("search").value = "";
    $("score").value = 0;
    $("score-value").textContent = "0.00";
    $("kind").value = "all";
    apply();
  });

  // ---- both opinions -------------------------------------------------------------------------------------------
  function make(tag, className, text) {
    const element = document.createElement(tag);
    if (className) element.className = className;
    if (text !== undefined) element.textContent = text;
    return element;
  }
  const best = (values) => values.reduce((top, value, i) => (value > values[top] ? i : top), 0);

  function figure(value, label, chosen) {
    const cell = make("span", `figure ${data.opinions[label].negative ? "negative" : `c${label}`}${chosen ? " top-choice" : ""}`, value === undefined ? "–" : value.toFixed(2));
    const bar = make("i");
    bar.style.width = `${Math.round(100 * (value || 0))}%`;
    cell.append(bar);
    return cell;
  }

  function describe(shape) {
    const parts = document.createDocumentFragment();
    const head = make("div", "head");
    head.append(make("i", "dot"), make("span", "", data.classes[shape.label].name), make("span", "value", shape.score.toFixed(2)));
    parts.append(head);
    const notes = [];
    if (shape.human) notes.push("corrected by a person");
    if (shape.mask !== null) notes.push(`mask quality ${shape.mask.toFixed(2)}`);
    if (notes.length) parts.append(make("div", "meta", notes.join(" · ")));
    if (!shape.detector.length) return parts;
    const rank = shape.detector.map((value, i) => [Math.max(value, shape.classifier ? shape.classifier[i] : 0), i]);
    const rows = rank.sort((a, b) => b[0] - a[0]).slice(0, 4).map(([, i]) => i);
    const table = make("div", "opinion");
    table.append(make("span"), make("span", "side", "detector"), make("span", "side", shape.classifier ? "classifier" : ""));
    for (const i of rows) {
      table.append(make("span", "what", data.opinions[i].name), figure(shape.detector[i], i, i === best(shape.detector)));
      table.append(shape.classifier ? figure(shape.classifier[i], i, i === best(shape.classifier)) : make("span"));
    }
    parts.append(table);
    if (shape.differs) parts.append(make("div", "verdict", "≠ The two opinions differ"));
    return parts;
  }

  function showTip(event, card) {
    const group = event.target.closest(".shape");
    if (!group) { tip.hidden = true; return; }
    const shape = card.shapes[group.dataset.shape];
    tip.className = `c${shape.label}`;
    tip.replaceChildren(describe(shape));
    tip.hidden = false;
    const { width, height } = tip.getBoundingClientRect();
    const right = event.clientX + 18 + width > innerWidth;
    tip.style.left = `${Math.max(8, right ? event.clientX - width - 18 : event.clientX + 18)}px`;
    tip.style.top = `${Math.max(8, Math.min(event.clientY + 14, innerHeight - height - 8))}px`;
  }

  for (const card of cards) {
    const frame = card.element.querySelector(".frame");
    frame.addEventListener("click", () => open(card));
    frame.addEventListener("pointermove", (event) => { if (event.pointerType === "mouse") showTip(event, card); });
    frame.addEventListener("pointerleave", () => { tip.hidden = true; });
  }

  // ---- lightbox ------------------------------------------------------------------------------------------------
  const box = $("lightbox");
  const stage = box.querySelector(".stage");
  let current = null;
  let opener = null;

  function fit() {
    const shot = stage.querySelector(".shot");
    if (!shot) return;
    const style = getComputedStyle(stage);
    const wide = stage.clientWidth - parseFloat(style.paddingLeft) * 2;
    const high = stage.clientHeight - parseFloat(style.paddingTop) * 2;
    const [width, height] = current.size;
    const scale = Math.min(wide / width, high / height);
    shot.style.width = `${width * scale}px`;
    shot.style.height = `${height * scale}px`;
  }

  function show(card) {
    current = card;
    const shot = card.element.querySelector(".shot").cloneNode(true);
    stage.replaceChildren(shot);
    box.querySelector("h2").textContent = card.path;
    const on = card.shapes.map((shape, k) => [shape, k]).filter(([shape]) => passes(shape));
    box.querySelector("aside .meta").textContent =
      `${card.size[0]} × ${card.size[1]} px · ${on.length === 1 ? "1 annotation" : `${on.length || "no"} annotations`}`;
    box.querySelector(".position").textContent = `${visible.indexOf(card) + 1} of ${visible.length}`;
    stage.classList.toggle("crowded", on.length > 2 * CROWDED);
    const light = (k, lit) => {
      shot.querySelectorAll(`[data-shape="${k}"]`).forEach((mark) => mark.classList.toggle("lit", lit));
      box.querySelectorAll(`.opinions > [data-shape="${k}"]`).forEach((row) => row.classList.toggle("lit", lit));
    };
    box.querySelector(".opinions").replaceChildren(
      ...on.sort((a, b) => b[0].score - a[0].score).map(([shape, k]) => {
        const row = make("li", `c${shape.label}`);
        row.dataset.shape = k;
        row.append(describe(shape));
        row.addEventListener("pointerenter", () => light(k, true));
        row.addEventListener("pointerleave", () => light(k, false));
        return row;
      }),
    );
    shot.addEventListener("pointerover", (event) => {
      const group = event.target.closest(".shape");
      if (!group) return;
      light(group.dataset.shape, true);
      box.querySelector(`.opinions > [data-shape="${group.dataset.shape}"]`)?.scrollIntoView({ block: "nearest" });
      group.addEventListener("pointerleave", () => light(group.dataset.shape, false), { once: true });
    });
    fit();
  }

  function open(card) {
    tip.hidden = true;
    opener = card;
    box.showModal();
    document.documentElement.style.overflow = "hidden";
    show(card);
  }
  function step(by) {
    const next = visible[(visible.indexOf(current) + by + visible.length) % visible.length];
    if (next) { opener = next; show(next); }
  }
  box.querySelector(".previous").addEventListener("click", () => step(-1));
  box.querySelector(".next").addEventListener("click", () => step(1));
  function leave() {
    stage.replaceChildren();
    document.documentElement.style.overflow = "";
    opener?.element.querySelector(".open").focus();
  }
  function close() {
    box.close();
    leave();
  }
  box.querySelector(".close").addEventListener("click", close);
  stage.addEventListener("click", (event) => { if (event.target === stage) close(); });
  // Closed by other means, a back gesture for one. The event comes late: the next picture may be open by now.
  box.addEventListener("close", () => { if (!box.open && stage.firstChild) leave(); });
  addEventListener("resize", () => { if (box.open) fit(); });
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (box.open && event.key === "Escape") { event.preventDefault(); close(); }
    else if (box.open && event.key === "ArrowRight") step(1);
    else if (box.open && event.key === "ArrowLeft") step(-1);
    else if (event.target.matches("input, select")) return;
    else if (event.key === "b") toggle("box");
    else if (event.key === "m") toggle("mask");
    else if (event.key === "l") toggle("label");
    else if (event.key === "/" && !box.open) { event.preventDefault(); $("search").focus(); }
  });

  apply();
})();
