"""The page of ``diff --html`` without its content: one file that needs no other and no network."""

from string import Template
from typing import Final

PAGE: Final = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:;
 style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<link rel="icon" href="data:,">
<title>$a → $b</title>
<style>
:root {
  color-scheme: light dark;
  --paper: #fbfaf8; --ink: #1d1c22; --soft: #6b6974; --line: #e3e1dc; --raised: #fff;
  --hatch: #c9c6cf; --bar: #8d7bb5;
}
/* From little to much: pale yellow over red to dark purple. */
.c {
  background: oklch(
    calc(.965 - .65 * var(--t))
    calc(.05 + .06 * var(--t) + .48 * var(--t) * (1 - var(--t)))
    calc(98 - 165 * var(--t)));
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --paper: #16151b; --ink: #ebeaf0; --soft: #9b98a8; --line: #2f2d38; --raised: #1d1c24;
    --hatch: #4d4a5a; --bar: #8f80bd;
  }
  /* The other way round, so that what changed most stands out. */
  .c {
    background: oklch(
      calc(.28 + .65 * var(--t))
      calc(.07 + .04 * var(--t) + .44 * var(--t) * (1 - var(--t)))
      calc(-67 + 165 * var(--t)));
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 14px/1.5 system-ui, sans-serif; font-variant-numeric: tabular-nums;
}
main { max-width: 1240px; margin: 0 auto; padding: 36px 28px 64px; }
h1 { font-size: 22px; line-height: 1.3; margin: 0 0 24px; overflow-wrap: anywhere; }
h1 b { color: var(--soft); font-weight: 400; padding: 0 .3em; }
h2 { font-size: 15px; margin: 40px 0 4px; }
p { margin: 0 0 12px; color: var(--soft); max-width: 75ch; }
ul { margin: 16px 0 0; padding-left: 18px; color: var(--soft); }
table { border-collapse: separate; border-spacing: 0; width: 100%; }
th { font-weight: 400; text-align: left; }

.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(200px, 1fr)); gap: 12px; }
.facts div {
  background: var(--raised); border: 1px solid var(--line); border-radius: 8px; padding: 12px 16px;
}
.facts span { display: block; color: var(--soft); font-size: 13px; }
.facts strong { display: block; font-size: 24px; font-weight: 600; line-height: 1.35; }

.wide { overflow-x: auto; }
.map { table-layout: fixed; border-spacing: 2px; min-width: $map_width; font-size: 12px; }
.map col.kind { width: 15em; }
.map col.all { width: 7em; }
.map th { overflow-wrap: anywhere; line-height: 1.25; padding-right: 8px; }
.map thead th { color: var(--soft); font-size: 11px; padding: 0; text-align: center;
  white-space: nowrap; overflow-wrap: normal; }
.map td { height: 22px; border-radius: 3px; padding: 0; }
.map td:not(.c, .same, .odd) { white-space: nowrap; padding-left: 8px; }
.map tbody + tbody::before { content: ""; display: block; height: 8px; }
.map td[data-tip]:hover { outline: 2px solid var(--ink); outline-offset: -1px; }
.same { box-shadow: inset 0 0 0 1px var(--line); }
.odd { background: repeating-linear-gradient(135deg, var(--hatch) 0 2px, transparent 2px 5px); }
i { display: inline-block; width: 1em; height: 1em; border-radius: 3px; vertical-align: -.12em; }
td i { margin-right: 6px; }
.legend { display: flex; flex-wrap: wrap; gap: 6px 24px; align-items: center; margin: 10px 0 0;
  color: var(--soft); font-size: 12px; }
.ramp { width: 320px; }
.ramp div { display: flex; justify-content: space-between; }
.ramp div:first-child { border-radius: 3px; overflow: hidden; }
.ramp i { flex: 1; border-radius: 0; }
.ramp b { font-weight: 400; }

.bars { display: flex; gap: 3px; max-width: 800px; margin-top: 8px; }
.bars div { flex: 1; min-width: 0; text-align: center; font-size: 11px; color: var(--soft); }
.bars span { display: flex; align-items: flex-end; height: 120px; margin-bottom: 4px;
  border-bottom: 1px solid var(--line); }
.bars b { width: 100%; background: var(--bar); border-radius: 3px 3px 0 0; }
.bars sup { line-height: 0; }

.tensors { font-size: 13px; }
.tensors th button { all: unset; cursor: pointer; color: var(--soft); }
.tensors th button:focus-visible { outline: 2px solid var(--ink); }
.tensors th[aria-sort] button { color: var(--ink); }
.tensors th[aria-sort=ascending] button::after { content: " ↑"; }
.tensors th[aria-sort=descending] button::after { content: " ↓"; }
.tensors thead th { position: sticky; top: 0; background: var(--paper); z-index: 1;
  border-bottom: 1px solid var(--line); padding: 6px 14px 6px 0; white-space: nowrap; }
.tensors td { border-bottom: 1px solid var(--line); padding: 4px 14px 4px 0; vertical-align: top; }
.tensors td:first-child { overflow-wrap: anywhere; }
.tensors .n { text-align: right; white-space: nowrap; }
.tensors .soft { color: var(--soft); }
input { font: inherit; color: inherit; background: var(--raised); border: 1px solid var(--line);
  border-radius: 6px; padding: 4px 10px; width: 24em; max-width: 100%; margin: 4px 0 8px; }
#tip { position: fixed; z-index: 2; pointer-events: none; white-space: pre; font-size: 12px;
  background: var(--ink); color: var(--paper); border-radius: 6px; padding: 8px 12px; }

@media print {
  @page { size: landscape; margin: 12mm; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  :root { --paper: #fff; }
  main { padding: 0; max-width: none; zoom: .75; }
  input, #tip { display: none; }
  section, tr, .facts div { break-inside: avoid; }
  section.long { break-inside: auto; }
  .tensors thead th { position: static; }
}
</style>
</head>
<body>
<main>
<h1>$a<b>→</b>$b</h1>
<div class="facts">$facts</div>
$notes
<section>
<h2>Layers and modules</h2>
<p>The relative change of each: the size of the change over the size of A, as L2 norms.</p>
<div class="wide"><table class="map">$map</table></div>
<div class="legend">$legend</div>
</section>
$ulps
<section class="long">
<h2>Tensors</h2>
<input type="search" placeholder="Show names with …" aria-label="Show names with" id="filter">
<table class="tensors">
<thead><tr>$columns</tr></thead>
<tbody>$tensors</tbody>
</table>
</section>
</main>
<div id="tip" hidden></div>
<script>
"use strict";
const table = document.querySelector(".tensors"), heads = [...table.tHead.rows[0].cells];
const rows = [...table.tBodies[0].rows];
heads.forEach((head, column) => head.firstElementChild.addEventListener("click", () => {
  const first = column ? "descending" : "ascending";
  const second = column ? "ascending" : "descending";
  const order = head.getAttribute("aria-sort") === first ? second : first;
  const sign = order === "ascending" ? 1 : -1;
  const value = row => Number(row.cells[column].dataset.v);
  rows.sort((one, other) => sign * (value(one) - value(other)));
  heads.forEach(each => each.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", order);
  table.tBodies[0].append(...rows);
}));
document.getElementById("filter").addEventListener("input", event => {
  const wanted = event.target.value.toLowerCase();
  for (const row of rows) row.hidden = !row.cells[0].textContent.toLowerCase().includes(wanted);
});
const tip = document.getElementById("tip");
document.addEventListener("pointerover", event => {
  const cell = event.target.closest("[data-tip]");
  tip.hidden = !cell;
  if (!cell) return;
  tip.textContent = cell.dataset.tip;
  const at = cell.getBoundingClientRect(), room = document.documentElement.clientWidth;
  const above = at.top > tip.offsetHeight + 8;
  tip.style.left = Math.max(8, Math.min(at.left, room - tip.offsetWidth - 8)) + "px";
  tip.style.top = (above ? at.top - tip.offsetHeight - 6 : at.bottom + 6) + "px";
});
</script>
</body>
</html>
""")
