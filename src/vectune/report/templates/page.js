"use strict";
// Reads the page's own data and draws nothing but text: every string of a document goes through textContent.

const find = (id) => document.getElementById(id);

function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

// Theme: what the system says, until the reader chooses. The choice is kept where the browser allows it.
(function theme() {
  const button = find("theme");
  const order = ["auto", "light", "dark"];
  let chosen = "auto";
  try { chosen = localStorage.getItem("vectune-theme") || "auto"; } catch { /* a page from a file may have no storage */ }
  if (!order.includes(chosen)) chosen = "auto";
  const show = () => {
    if (chosen === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = chosen;
    button.querySelector("span").textContent = chosen;
  };
  button.hidden = false;
  button.addEventListener("click", () => {
    chosen = order[(order.indexOf(chosen) + 1) % order.length];
    try { localStorage.setItem("vectune-theme", chosen); } catch { /* as above */ }
    show();
  });
  show();
})();

(function queries() {
  const source = find("data-queries");
  if (!source) return;
  const data = JSON.parse(source.textContent);
  const depth = Number(source.dataset.depth), measure = source.dataset.measure;
  const items = data.queries.map(([text, before, after, rankBefore, rankAfter, base, tuned, right], index) => ({
    index, text, before, after, rankBefore, rankAfter, base, tuned, right, gain: after - before,
    side: Math.abs(after - before) < 1e-9 ? "same" : after > before ? "up" : "down", folded: text.toLowerCase(),
  }));
  const figure = (value) => (Math.abs(value) < 0.9995 ? value.toFixed(3).replace("0.", ".") : value.toFixed(3));
  const gain = (value) => (Math.abs(value) < 5e-4 ? "±.000" : (value > 0 ? "+" : "−") + figure(Math.abs(value)));
  const rank = (value) => (value ? String(value) : `>${depth}`);
  const moved = (item) => `${rank(item.rankBefore)} → ${rank(item.rankAfter)}`;
  const shorten = (text, most) => (text.length > most ? `${text.slice(0, most).trimEnd()}…` : text);

  // One query: its two rankings side by side
  const card = find("card");
  let open = null, sequence = items;
  function hits(list, chunks, right) {
    list.replaceChildren(...chunks.map((number) => {
      const isRight = right.includes(number), line = make("li", isRight ? "right" : "");
      if (isRight) line.append(make("strong", "tag", "right"));
      line.append(...passage(number));
      return line;
    }));
    if (!chunks.length) list.append(make("li", "none", "nothing was found"));
  }
  function passage(number) {
    const [place, title, text] = data.chunks[number], parts = [];
    if (title) parts.push(make("b", "", title));
    parts.push(make("span", "", text), make("small", "", place));
    for (const part of parts) part.dir = "auto";
    return parts.flatMap((part) => [part, " "]);
  }
  function show(item, within) {
    open = item;
    if (within) sequence = within;
    find("card-title").textContent = item.text;
    find("card-figures").textContent =
      `${measure} ${figure(item.before)} → ${figure(item.after)} (${gain(item.gain)}), first right chunk at rank ${moved(item)}`;
    hits(find("card-base"), item.base, item.right);
    hits(find("card-tuned"), item.tuned, item.right);
    const missing = item.right.filter((number) => !item.base.includes(number) && !item.tuned.includes(number)).slice(0, 5);
    const answer = find("card-answer");
    answer.hidden = !missing.length;
    answer.replaceChildren(answer.firstElementChild, ...missing.map((number) => {
      const line = make("p");
      line.append(...passage(number));
      return line;
    }));
    if (!card.open) {
      card.showModal();
      find("card-close").focus(); // the attribute autofocus already acts when the page loads
    }
    card.scrollTop = 0;
  }
  function step(by) {
    const at = sequence.indexOf(open);
    show(sequence[(at + by + sequence.length) % sequence.length]);
  }
  find("card-close").addEventListener("click", () => card.close());
  find("card-back").addEventListener("click", () => step(-1));
  find("card-next").addEventListener("click", () => step(1));
  card.addEventListener("click", (event) => { if (event.target === card) card.close(); });
  card.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  });

  // The scatter: the nearest dot is the one that is meant
  const area = find("scatter"), ring = find("ring"), tip = find("scatter-text"), idle = tip.textContent;
  const dots = [...area.querySelectorAll(".dots circle")].map((circle, index) => ({
    x: Number(circle.getAttribute("cx")), y: Number(circle.getAttribute("cy")), item: items[index],
  }));
  let current = null;
  function point(dot) {
    current = dot;
    ring.setAttribute("visibility", dot ? "visible" : "hidden");
    if (dot) { ring.setAttribute("cx", dot.x); ring.setAttribute("cy", dot.y); }
    area.style.cursor = dot ? "pointer" : "";
    tip.replaceChildren();
    if (!dot) { tip.textContent = idle; return; }
    const text = make("span", "", shorten(dot.item.text, 240));
    text.dir = "auto";
    tip.append(make("strong", dot.item.side, gain(dot.item.gain)), ` rank ${moved(dot.item)} `, text);
  }
  function nearest(event) {
    const box = area.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * 1000, y = ((event.clientY - box.top) / box.height) * 1000;
    let best = null, least = (22 / box.width) * 1000;
    for (const dot of dots) {
      const away = Math.hypot(dot.x - x, dot.y - y);
      if (away < least) { least = away; best = dot; }
    }
    return best;
  }
  area.addEventListener("pointermove", (event) => { const dot = nearest(event); if (dot !== current) point(dot); });
  area.addEventListener("pointerleave", () => { if (document.activeElement !== area) point(null); });
  area.addEventListener("click", (event) => {
    const dot = nearest(event);
    if (dot) { point(dot); show(dot.item, items); }
  });
  const directions = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  function neighbour([dx, dy]) {
    let best = null, least = Infinity;
    for (const dot of dots) {
      const ahead = (dot.x - current.x) * dx + (dot.y - current.y) * dy;
      const aside = Math.abs((dot.x - current.x) * dy) + Math.abs((dot.y - current.y) * dx);
      if (dot !== current && ahead > 0.05 && ahead + 2 * aside < least) { least = ahead + 2 * aside; best = dot; }
    }
    return best || current;
  }
  area.addEventListener("keydown", (event) => {
    if (event.key in directions) {
      event.preventDefault();
      point(current ? neighbour(directions[event.key]) : dots[0]);
    } else if ((event.key === "Enter" || event.key === " ") && current) {
      event.preventDefault();
      show(current.item, items);
    }
  });
  area.addEventListener("focus", () => { if (!current && dots.length && area.matches(":focus-visible")) point(dots[0]); });
  area.addEventListener("blur", () => { if (!card.open) point(null); });

  // The list: the same queries, searchable
  const list = find("list"), which = find("which"), search = find("find"), more = find("more"), page = 12;
  let chosen = items, shown = 0;
  function row(item) {
    const line = make("li"), button = make("button");
    button.type = "button";
    const text = make("span", "text", shorten(item.text, 240));
    text.dir = "auto";
    button.append(make("span", "moved", moved(item)), " ", text, " ", make("span", `number ${item.side}`, gain(item.gain)));
    button.addEventListener("click", () => show(item, chosen));
    line.append(button);
    return line;
  }
  function extend() {
    list.append(...chosen.slice(shown, shown + page).map(row));
    shown = Math.min(shown + page, chosen.length);
    more.hidden = shown >= chosen.length;
    find("found").textContent = `${chosen.length.toLocaleString("en")} queries, ${shown.toLocaleString("en")} listed. Rank of the first right chunk, before → after.`;
  }
  function refresh() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    chosen = items.filter((item) => (which.value === "all" || item.side === which.value) && words.every((word) => item.folded.includes(word)));
    shown = 0;
    list.replaceChildren();
    extend();
  }
  more.addEventListener("click", () => {
    const first = shown;
    extend();
    list.children[first]?.querySelector("button").focus();
  });
  which.addEventListener("change", refresh);
  search.addEventListener("input", refresh);
  find("explorer").hidden = false;
  refresh();
})();

// Paper shows what is folded on the screen; of the regressions the worst three, not a dozen pages of them.
let folded = [];
addEventListener("beforeprint", () => {
  folded = [...document.querySelectorAll("details:not([open])")].filter((part) => !part.matches(".cases details:nth-child(n + 4)"));
  for (const part of folded) part.open = true;
});
addEventListener("afterprint", () => { for (const part of folded) part.open = false; });
