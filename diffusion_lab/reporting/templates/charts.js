"use strict";
/* Charts are drawn already. Here come the values under the pointer, finger or arrow keys, lines that
   hide at a click on their name, and the zoom: a range of the axis across. */

/* Round numbers between two others, as `Axis.ticks` of charts.py has them. */
function roundNumbers(low, high, log) {
  const within = (value) => value >= low && value <= high;
  const factors = high / low > 100 ? [1] : [1, 2, 5];
  const decades = log ? Array.from({ length: 60 }, (_, k) => 10 ** (k - 30)) : [];
  const found = decades.flatMap((decade) => factors.map((factor) => factor * decade)).filter(within);
  if (found.length > 1) return found;
  const power = 10 ** Math.floor(Math.log10((high - low) / 3));
  const step = power * [5, 2, 1].find((f) => f === 1 || f * power <= (high - low) / 3);
  return Array.from({ length: 20 }, (_, k) => (Math.ceil(low / step) + k) * step).filter(within);
}

/* An axis, of which the part between `from` and `to` is shown, in units of the drawing. */
function axisOf(group) {
  const [start, end, low, high, log] = group.dataset.axis.split(" ").map(Number);
  const [warp, back] = log ? [Math.log, Math.exp] : [Number, Number];
  const unit = (end - start) / (warp(high) - warp(low));
  const first = group.firstElementChild;
  const names = [...group.children].map((tick) => [Number(tick.dataset.at), tick.textContent]);
  const axis = { start, end, from: start, to: end };
  axis.shown = (place) => start + (place - axis.from) * (end - start) / (axis.to - axis.from);
  axis.whole = (place) => axis.from + (place - start) * (axis.to - axis.from) / (end - start);
  axis.has = (place) => (place - axis.from) * (place - axis.to) <= 0;
  axis.draw = () => {
    const ends = [axis.from, axis.to].map((place) => back(warp(low) + (place - start) / unit));
    const ticks = "named" in group.dataset ? names : roundNumbers(...ends, log).map((number) =>
      [start + (warp(number) - warp(low)) * unit, String(Number(number.toPrecision(6)))]);
    group.replaceChildren(...ticks.filter(([place]) => axis.has(place)).map(([place, text]) => {
      const tick = first.cloneNode(true);
      const move = group.matches(".across") ? [axis.shown(place), 0] : [0, axis.shown(place)];
      tick.setAttribute("transform", `translate(${move.join(" ")})`);
      tick.querySelector("text").textContent = text;
      return tick;
    }));
  };
  return axis;
}

for (const chart of document.querySelectorAll(".chart")) {
  const [svg, area, says, rule, band] = ["svg", ".area", ".at", ".rule", ".band"]
    .map((name) => chart.querySelector(name));
  const [across, up] = [...svg.querySelectorAll(".axis")].map(axisOf);
  const { x, y, width, height } = area.viewBox.baseVal;
  const margin = [x - across.start, y - up.end, width, height];
  const crowded = chart.classList.contains("crowded");
  const over = chart.dataset.over;
  const [keys, marks] = ["button.key", ".mark"].map((name) => [...chart.querySelectorAll(name)]);
  if (crowded) keys.reverse();  // the best comes first by name, and last to be drawn
  const curves = [...area.querySelectorAll(".curve")].map((group, k) => {
    const [at, values] = [group.dataset.at.split(" "), group.dataset.values.split(" ")];
    const curve = { group, mark: marks[k], now: keys[k]?.querySelector(".now"), name: group.dataset.name };
    curve.dots = [...group.querySelector("polyline").points].map(
      ({ x, y }, n) => ({ x, y, at: at[n], value: values[n], curve }));
    return curve;
  });
  const still = [says, ...curves.map((curve) => curve.now)].filter(Boolean).map((node) => [node, node.textContent]);
  let [stops, now, pressed] = [[], -1, null];

  const seen = () => curves.filter(({ group }) => !group.classList.contains("off"));
  const rest = () => {
    now = -1;
    svg.classList.remove("probed");
    still.forEach(([node, text]) => { node.textContent = text; });
    curves.forEach(({ group, mark }) => [group, mark].forEach((part) => part.classList.remove("on")));
  };
  /* Show a range; the axis up fits what is in it. */
  const show = (from, to) => {
    [across.from, across.to] = [Math.max(from, across.start), Math.min(to, across.end)];
    const dots = seen().flatMap((curve) => curve.dots).filter((dot) => across.has(dot.x));
    const [low, high] = [Math.max, Math.min].map((end) => end(...dots.map((dot) => dot.y)));
    const all = seen().length === curves.length && from <= across.start && to >= across.end;
    [up.from, up.to] = all || !(low > high) ? [up.start, up.end] : [low, high];
    const [wide, tall] = [across, up].map((axis) => (axis.to - axis.from) / (axis.end - axis.start));
    const [left, top, ...size] = margin.map((part, k) => part * (k % 2 ? tall : wide));
    area.setAttribute("viewBox", [across.from + left, up.to + top, ...size].join(" "));
    [across, up].forEach((axis) => axis.draw());
    const columns = new Map(dots.map((dot) => [dot.x, dot]));
    stops = crowded ? dots : [...columns.values()].sort((a, b) => a.x - b.x);
    svg.setAttribute("aria-valuemax", String(stops.length - 1));
    rest();
  };
  const read = (k) => {
    now = Math.min(Math.max(k, 0), stops.length - 1);
    const stop = stops[now];
    const place = `${over} ${stop.at}`;
    const words = seen().map((curve) => {
      const apart = (dot) => Math.abs(dot.x - stop.x);
      const dot = crowded ? stop : curve.dots.reduce((a, b) => (apart(b) < apart(a) ? b : a));
      const on = dot.curve === curve && across.has(dot.x);
      [curve.group, curve.mark].forEach((part) => part.classList.toggle("on", on));
      curve.mark.setAttribute("cx", across.shown(dot.x));
      curve.mark.setAttribute("cy", up.shown(dot.y));
      const said = dot.at === stop.at ? dot.value : `${dot.value} (${over} ${dot.at})`;
      if (curve.now) curve.now.textContent = said;
      return `${curve.name} ${said}`;
    });
    svg.classList.add("probed");
    ["x1", "x2"].forEach((end) => rule.setAttribute(end, across.shown(stop.x)));
    says.textContent = crowded ? `${stop.curve.name}: ${stop.value} at ${place}` : `at ${place}`;
    svg.setAttribute("aria-valuenow", String(now));
    svg.setAttribute("aria-valuetext", crowded ? says.textContent : `${place}: ${words.join(", ")}`);
  };
  const whole = () => show(across.start, across.end);
  const zoom = (factor) => {
    const middle = stops[now]?.x ?? (across.from + across.to) / 2;
    const half = (across.to - across.from) * factor / 2;
    if (half > 2) show(middle - half, middle + half);
  };
  /* Read what is next to the pointer; the range between where it was pressed and where it is. */
  const follow = (event) => {
    const box = svg.getBoundingClientRect();
    const unit = svg.viewBox.baseVal.width / box.width;
    const [x, y] = [(event.clientX - box.left) * unit, (event.clientY - box.top) * unit];
    const far = stops.map((dot) => Math.hypot(across.shown(dot.x) - x, crowded ? up.shown(dot.y) - y : 0));
    if (stops.length) read(far.indexOf(Math.min(...far)));
    const [from, to] = [Math.min(pressed ?? x, x), Math.max(pressed ?? x, x)];
    band.setAttribute("x", from);
    band.setAttribute("width", to - from);
    return [from, to];
  };
  svg.addEventListener("pointerdown", (event) => {
    const [x] = follow(event);
    if (event.pointerType !== "mouse" || event.button) return;
    pressed = x;
    svg.setPointerCapture(event.pointerId);
  });
  svg.addEventListener("pointermove", follow);
  svg.addEventListener("pointerup", (event) => {
    const [from, to] = follow(event);
    pressed = null;
    band.setAttribute("width", 0);
    if (to - from > 8) show(across.whole(from), across.whole(to));
  });
  svg.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") rest(); });
  svg.addEventListener("blur", rest);
  svg.addEventListener("dblclick", whole);
  svg.addEventListener("keydown", (event) => {
    const last = stops.length - 1;
    const to = { ArrowLeft: now - 1, ArrowRight: now + 1, Home: 0, End: last }[event.key];
    const act = { "+": () => zoom(0.5), "-": () => zoom(2), 0: whole }[event.key];
    if (to === undefined && !act) return;
    event.preventDefault();
    if (act) act();
    else if (last >= 0) read(now < 0 && event.key.startsWith("Arrow") ? last : to);
  });
  const [closer, all] = chart.querySelectorAll(".zoom button");
  closer.addEventListener("click", () => zoom(0.5));
  all.addEventListener("click", whole);
  keys.forEach((key, k) => key.addEventListener("click", () => {
    key.setAttribute("aria-pressed", String(!curves[k].group.classList.toggle("off")));
    show(across.from, across.to);
  }));
  whole();
  const slider = { tabindex: 0, role: "slider", "aria-valuemin": 0, "aria-valuenow": stops.length - 1 };
  Object.entries(slider).forEach(([name, value]) => svg.setAttribute(name, value));
}
