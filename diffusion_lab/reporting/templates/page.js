
"use strict";
document.documentElement.classList.add("scripted");
const calm = window.matchMedia("(prefers-reduced-motion: reduce)");

/* A film: one frame at a time, by slider or by itself. */
for (const film of document.querySelectorAll(".film")) {
  const frames = film.querySelectorAll("figure");
  const slider = film.querySelector("input");
  const play = film.querySelector("button.play");
  const says = film.querySelector("output");
  const last = frames.length - 1;
  let timer = 0;
  const show = () => {
    frames.forEach((frame, k) => frame.classList.toggle("shown", k === Number(slider.value)));
    says.textContent = frames[Number(slider.value)].querySelector("figcaption").textContent;
    slider.setAttribute("aria-valuetext", says.textContent);
  };
  const stop = () => {
    window.clearInterval(timer);
    timer = 0;
    play.textContent = "Play";
  };
  const step = () => {
    slider.value = String(Number(slider.value) + 1);
    show();
    if (Number(slider.value) >= last) stop();
  };
  play.addEventListener("click", () => {
    if (timer) return stop();
    if (Number(slider.value) >= last) slider.value = "0";
    show();
    play.textContent = "Pause";
    timer = window.setInterval(step, calm.matches ? 1200 : Math.max(120, 3000 / frames.length));
  });
  slider.addEventListener("input", () => { stop(); show(); });
  slider.value = String(last);
  show();
}

/* Where a pointer is, in the units of a drawing. */
function placeIn(svg, event) {
  const box = svg.getBoundingClientRect();
  const view = svg.viewBox.baseVal;
  return [(event.clientX - box.left) * view.width / box.width,
          (event.clientY - box.top) * view.height / box.height];
}

function draw(parent, name, attributes) {
  const made = document.createElementNS(parent.namespaceURI, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return parent.appendChild(made);
}

function nearest(items, distance) {
  return items.reduce((best, item) => (distance(item) < distance(best) ? item : best));
}

function closeness(x, y) {
  return (dot) => (dot.x - x) ** 2 + (dot.y - y) ** 2;
}

/* Values under the pointer, finger or arrow keys; `tell` shows one place and says it in words. */
function probe(svg, stops, find, tell, rest) {
  let now = -1;
  const go = (k) => {
    now = Math.min(Math.max(k, 0), stops.length - 1);
    svg.setAttribute("aria-valuenow", String(now));
    svg.setAttribute("aria-valuetext", tell(stops[now]));
  };
  const follow = (event) => go(stops.indexOf(find(...placeIn(svg, event))));
  for (const [key, value] of Object.entries({
    tabindex: 0, role: "slider", "aria-valuemin": 0, "aria-valuemax": stops.length - 1,
    "aria-valuenow": stops.length - 1,
  })) svg.setAttribute(key, value);
  svg.addEventListener("pointerdown", follow);
  svg.addEventListener("pointermove", follow);
  svg.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") rest(); });
  svg.addEventListener("blur", rest);
  svg.addEventListener("keydown", (event) => {
    const to = { ArrowLeft: now - 1, ArrowRight: now + 1, Home: 0, End: stops.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    go(now < 0 ? stops.length - 1 : to);
  });
}

function dotsOf(curve) {
  const line = curve.querySelector("polyline");
  const values = line.dataset.values.split(" ");
  const at = line.dataset.at.split(" ");
  return line.getAttribute("points").split(" ").map((pair, k) => {
    const [x, y] = pair.split(",").map(Number);
    return { x, y, at: at[k], value: values[k], curve };
  });
}

for (const chart of document.querySelectorAll(".chart:not(.spots)")) {
  const svg = chart.querySelector("svg");
  const curves = [...svg.querySelectorAll(".curve")].map((g) => ({ g, dots: dotsOf(g) }));
  const all = curves.flatMap((curve) => curve.dots);
  const at = chart.querySelector(".at");
  const usual = at.textContent;
  const axis = svg.dataset.axis;
  const rule = draw(svg, "line", { class: "rule", y1: svg.dataset.top, y2: svg.dataset.bottom });
  const marks = curves.map(({ g }) => draw(g, "circle", { class: "mark", r: 4 }));
  const put = (mark, dot) => { mark.setAttribute("cx", dot.x); mark.setAttribute("cy", dot.y); };
  const lay = (x) => { rule.setAttribute("x1", x); rule.setAttribute("x2", x); };
  if (chart.classList.contains("crowded")) {
    const rest = () => {
      svg.classList.remove("probed");
      curves.forEach(({ g }) => g.classList.remove("on"));
      at.textContent = usual;
    };
    const tell = (dot) => {
      svg.classList.add("probed");
      curves.forEach(({ g }, k) => {
        g.classList.toggle("on", g === dot.curve);
        if (g === dot.curve) put(marks[k], dot);
      });
      lay(dot.x);
      at.textContent = `${dot.curve.dataset.name}: ${dot.value} at ${axis} ${dot.at}`;
      return at.textContent;
    };
    probe(svg, all, (x, y) => nearest(all, closeness(x, y)), tell, rest);
    continue;
  }
  const says = [...chart.querySelectorAll(".now")];
  const last = says.map((one) => one.textContent);
  const stops = [...new Map(all.map((dot) => [dot.x, dot])).values()].sort((a, b) => a.x - b.x);
  const rest = () => {
    svg.classList.remove("probed");
    says.forEach((one, k) => { one.textContent = last[k]; });
    at.textContent = usual;
  };
  const tell = (stop) => {
    svg.classList.add("probed");
    lay(stop.x);
    const words = curves.map(({ g, dots }, k) => {
      const dot = nearest(dots, (one) => Math.abs(one.x - stop.x));
      put(marks[k], dot);
      says[k].textContent = dot.at === stop.at ? dot.value : `${dot.value} (${axis} ${dot.at})`;
      return `${g.dataset.name} ${says[k].textContent}`;
    });
    at.textContent = `at ${axis} ${stop.at}`;
    return `${axis} ${stop.at}: ${words.join(", ")}`;
  };
  probe(svg, stops, (x) => nearest(stops, (stop) => Math.abs(stop.x - x)), tell, rest);
}

for (const chart of document.querySelectorAll(".chart.spots")) {
  const svg = chart.querySelector("svg");
  const at = chart.querySelector(".at");
  const usual = at.textContent;
  const spots = [...svg.querySelectorAll(".spot")].map((spot) => ({
    x: Number(spot.getAttribute("cx")), y: Number(spot.getAttribute("cy")), spot,
  }));
  const mark = (chosen) => spots.forEach(({ spot }) => spot.classList.toggle("on", spot === chosen));
  const rest = () => { mark(null); at.textContent = usual; };
  const tell = ({ spot }) => {
    mark(spot);
    at.textContent = spot.textContent;
    return spot.textContent;
  };
  probe(svg, spots, (x, y) => nearest(spots, closeness(x, y)), tell, rest);
}

for (const drawing of document.querySelectorAll(".wideplot")) {
  const says = drawing.parentElement.querySelector(".keys .at");
  const paths = [...drawing.querySelectorAll(".path")];
  const tell = (path) => {
    paths.forEach((one) => one.classList.toggle("on", one === path));
    says.textContent = path.querySelector("title").textContent;
  };
  for (const path of paths) {
    path.setAttribute("tabindex", 0);
    for (const when of ["pointerenter", "pointerdown", "focus"]) {
      path.addEventListener(when, () => tell(path));
    }
  }
}

/* One of several metrics at a time. */
for (const choices of document.querySelectorAll(".choices")) {
  const parts = [...choices.querySelectorAll(".choice")];
  if (parts.length < 2) continue;
  const bar = document.createElement("p");
  bar.className = "tabs";
  const buttons = parts.map((part) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = part.dataset.name;
    return bar.appendChild(button);
  });
  const choose = (k) => parts.forEach((part, other) => {
    part.classList.toggle("hidden", other !== k);
    buttons[other].setAttribute("aria-pressed", String(other === k));
  });
  buttons.forEach((button, k) => button.addEventListener("click", () => choose(k)));
  choices.prepend(bar);
  choose(0);
}

for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.querySelectorAll("thead th")];
  const body = table.querySelector("tbody");
  const key = (row, column) => {
    const cell = row.cells[column];
    return (cell.dataset.key ?? cell.textContent).trim();
  };
  const compare = (a, b) => {
    const [x, y] = [Number(a), Number(b)];
    if (!Number.isNaN(x) && !Number.isNaN(y)) return x - y;
    return a.localeCompare(b);
  };
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    const filled = [...body.rows].filter((row) => key(row, column) !== "");
    const empty = [...body.rows].filter((row) => key(row, column) === "");
    filled.sort((a, b) => sign * compare(key(a, column), key(b, column)));
    heads.forEach((other) => other.setAttribute("aria-sort", "none"));
    head.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
    body.append(...filled, ...empty);
  }));
}

for (const command of document.querySelectorAll(".command")) {
  const line = command.querySelector("pre");
  const button = document.createElement("button");
  button.type = "button";
  button.className = "copy";
  button.textContent = "Copy";
  button.setAttribute("aria-label", `copy: ${command.querySelector("p").textContent}`);
  const byHand = () => {
    window.getSelection().selectAllChildren(line);
    return document.execCommand("copy");
  };
  button.addEventListener("click", async () => {
    let done = true;
    try {
      await navigator.clipboard.writeText(line.textContent);
    } catch {
      done = byHand();
    }
    button.textContent = done ? "Copied" : "Press Ctrl+C";
    window.setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });
  command.append(button);
}
