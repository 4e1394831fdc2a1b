"use strict";
const AT_ONCE = 500;
const table = document.querySelector(".tensors"), heads = [...table.tHead.rows[0].cells];
const rows = [...table.tBodies[0].rows];
const find = id => document.getElementById(id);
const wanted = find("wanted"), chosen = find("chosen"), more = find("more"), tip = find("tip");
const statuses = [...document.querySelectorAll("[data-s]")];
const cells = [...document.querySelectorAll(".map a")];
let cell = null, status = "", limit = AT_ONCE;

/* Which rows are shown: those of a cell, of a status, and with a part of a name. */
const matches = row =>
  (!cell || ["l", "k"].every(key => !(key in cell.dataset) || cell.dataset[key] === row.dataset[key]))
  && (!status || row.cells[1].dataset.v === status)
  && row.cells[0].textContent.toLowerCase().includes(wanted.value.toLowerCase());

const grouped = number => String(number).replace(/\B(?=(\d{3})+$)/g, " ");

function show() {
  let found = 0;
  for (const row of rows) row.hidden = !matches(row) || ++found > limit;
  const all = found === rows.length ? "" : ` of ${grouped(rows.length)}`;
  find("count").textContent = `${grouped(found)}${all} ${rows.length === 1 ? "tensor" : "tensors"}`;
  more.hidden = found <= limit;
  more.textContent = `Show all ${grouped(found)}`;
  chosen.hidden = !cell;
  chosen.textContent = cell ? cell.ariaLabel.split("\n")[0] : "";
  chosen.ariaLabel = `${chosen.textContent}: show all tensors again`;
  statuses.forEach(each => each.ariaPressed = String(each.dataset.s === status));
}

function choose(next) {
  cell = next;
  limit = AT_ONCE;
  show();
}

wanted.addEventListener("input", () => choose(cell));
wanted.form.addEventListener("submit", event => event.preventDefault());
chosen.addEventListener("click", () => { choose(null); wanted.focus(); });
more.addEventListener("click", () => { limit = Infinity; show(); });
statuses.forEach(each => each.addEventListener("click", () => {
  status = each.dataset.s;
  choose(cell);
}));
heads.forEach((head, column) => head.firstElementChild.addEventListener("click", () => {
  const [first, second] = column < 2 ? ["ascending", "descending"] : ["descending", "ascending"];
  const order = head.ariaSort === first ? second : first;
  const sign = order === "ascending" ? 1 : -1;
  const value = row => Number(row.cells[column].dataset.v);
  rows.sort((one, other) => sign * (value(one) - value(other)) || 0);
  heads.forEach(each => each.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", order);
  table.tBodies[0].append(...rows);
  show();
}));

/* The map is one stop of the tab key; arrows, Home and End move within it. */
const places = new Map();
for (const row of document.querySelectorAll(".map tbody tr")) {
  let column = 0;
  for (const each of row.cells) {
    const link = each.querySelector("a");
    if (link) places.set(link, [row, column]);
    column += each.colSpan;
  }
}
const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
function neighbour(link, key) {
  const [row, column] = places.get(link);
  const inRow = cells.filter(each => places.get(each)[0] === row);
  if (key === "Home") return inRow[0];
  if (key === "End") return inRow.at(-1);
  const [down, right] = steps[key];
  if (right) return inRow[inRow.indexOf(link) + right];
  const order = [...new Set(cells.map(each => places.get(each)[0]))];
  const next = order[order.indexOf(row) + down];
  const there = cells.filter(each => places.get(each)[0] === next);
  const far = each => Math.abs(places.get(each)[1] - column);
  return there.sort((one, other) => far(one) - far(other))[0];
}
cells.forEach((each, number) => each.tabIndex = number ? -1 : 0);
document.querySelector(".map")?.addEventListener("keydown", event => {
  const link = event.target.closest("a");
  if (!link || event.ctrlKey || event.metaKey || event.altKey) return;
  if (!(event.key in steps) && event.key !== "Home" && event.key !== "End") return;
  event.preventDefault();
  const next = neighbour(link, event.key);
  if (!next) return;
  link.tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
  next.scrollIntoView({ block: "nearest", inline: "center" });
});
cells.forEach(each => each.addEventListener("click", event => {
  event.preventDefault();
  wanted.value = "";
  status = "";
  choose(each);
  hint(null);
  find("tensors").focus({ preventScroll: true });
  find("tensors").scrollIntoView();
}));

/* What a cell says, for mouse and keyboard. */
function hint(link) {
  tip.hidden = !link;
  if (!link) return;
  tip.textContent = link.ariaLabel;
  const at = link.getBoundingClientRect(), room = document.documentElement.clientWidth;
  const above = at.top > tip.offsetHeight + 8;
  tip.style.left = Math.max(8, Math.min(at.left, room - tip.offsetWidth - 8)) + "px";
  tip.style.top = (above ? at.top - tip.offsetHeight - 6 : at.bottom + 6) + "px";
}
for (const kind of ["pointerover", "focusin"]) {
  document.addEventListener(kind, event => hint(event.target.closest(".map a")));
}
document.addEventListener("focusout", () => hint(null));
document.addEventListener("keydown", event => { if (event.key === "Escape") hint(null); });
document.addEventListener("scroll", () => hint(document.activeElement.closest(".map a")), true);

/* Paper holds all rows that are chosen. */
addEventListener("beforeprint", () => { limit = Infinity; show(); });

wanted.form.hidden = false;
show();
