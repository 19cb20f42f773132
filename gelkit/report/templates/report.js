"use strict";
const table = document.getElementById("results");
const body = table.tBodies[0];
const filters = document.getElementById("filters");

// Numbers as numbers, an empty cell last whichever way; everything else as a reader sorts it.
function compare(first, second, descending) {
  if (first === second) return 0;
  if (first === "" || second === "") return first === "" ? 1 : -1;
  const numbers = [Number(first), Number(second)];
  const order = numbers.some(Number.isNaN)
    ? first.localeCompare(second)
    : numbers[0] - numbers[1];
  return descending ? -order : order;
}

function sortBy(heading) {
  const descending = heading.getAttribute("aria-sort") === "ascending" ||
    (!heading.hasAttribute("aria-sort") && heading.classList.contains("number"));
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
  const place = heading.cellIndex;
  const value = (row) => row.cells[place].dataset.value;
  body.append(...[...body.rows].sort((a, b) => compare(value(a), value(b), descending)));
}

function filter() {
  const asked = [...filters.querySelectorAll("select")].filter((its) => its.value);
  const words = filters.elements.words.value.toLowerCase().split(/\s+/);
  for (const row of body.rows) {
    const text = row.textContent.toLowerCase();
    row.hidden = !(words.every((word) => text.includes(word)) &&
      asked.every((its) => row.getAttribute("data-" + its.name) === its.value));
  }
  const shown = [...body.rows].filter((row) => !row.hidden).length;
  document.getElementById("count").value = `${shown} of ${body.rows.length} shown`;
}

for (const heading of table.tHead.rows[0].cells) {
  if ("fixed" in heading.dataset) continue;
  const button = document.createElement("button");
  button.type = "button";
  button.append(...heading.childNodes);
  button.addEventListener("click", () => sortBy(heading));
  heading.append(button);
}
filters.addEventListener("input", filter);
filters.addEventListener("submit", (event) => event.preventDefault());
filters.hidden = false;
filter();
