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
