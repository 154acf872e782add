
"use strict";
document.documentElement.classList.add("scripted");

for (const film of document.querySelectorAll(".film")) {
  const frames = film.querySelectorAll("figure");
  const slider = film.querySelector("input");
  const says = film.querySelector("output");
  const show = () => {
    frames.forEach((frame, k) => frame.classList.toggle("shown", k === Number(slider.value)));
    says.textContent = frames[Number(slider.value)].querySelector("figcaption").textContent;
  };
  slider.addEventListener("input", show);
  slider.value = String(frames.length - 1);
  show();
}

for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.querySelectorAll("thead th")];
  const body = table.querySelector("tbody");
  const compare = (a, b) => {
    const [x, y] = [Number(a), Number(b)];
    if (a !== "" && b !== "" && !Number.isNaN(x) && !Number.isNaN(y)) return x - y;
    return a.localeCompare(b);
  };
  heads.forEach((head, column) => head.addEventListener("click", () => {
    const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    const text = (row) => row.cells[column].textContent.trim();
    const rows = [...body.rows].sort((a, b) => sign * compare(text(a), text(b)));
    heads.forEach((other) => other.setAttribute("aria-sort", "none"));
    head.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
    body.append(...rows);
  }));
}
