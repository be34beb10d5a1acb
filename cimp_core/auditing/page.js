"use strict";
// Sorting by a column's data-sort (numbers as numbers), and hiding verdicts. Nothing is fetched.
const body = document.querySelector("#images tbody");
const heads = [...document.querySelectorAll("#images thead th")];
const key = (row, column) => {
  const cell = row.cells[column];
  const text = cell.dataset.sort ?? cell.textContent;
  const number = Number(text);
  return text !== "" && !Number.isNaN(number) ? number : text;
};
const compare = (a, b) => {
  if (typeof a === "number" && typeof b === "number") return a - b;
  return String(a).localeCompare(String(b));
};
heads.forEach((head, column) => {
  head.querySelector("button").addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") === "ascending";
    heads.forEach((other) => other.setAttribute("aria-sort", "none"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const rows = [...body.rows].map((row) => [key(row, column), row]);
    rows.sort((a, b) => (down ? -1 : 1) * compare(a[0], b[0]));
    body.append(...rows.map((pair) => pair[1]));
  });
});
document.querySelectorAll("fieldset input").forEach((box) => {
  box.addEventListener("change", () => {
    for (const row of body.rows) {
      if (row.dataset.verdict === box.dataset.verdict) row.hidden = !box.checked;
    }
  });
});
