"""The page's style sheet, and its one script: a large confusion matrix shows the pointer's cell."""

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #fbfbfa; --card: #fff; --ink: #1d1f23; --soft: #6a6f78; --line: #e3e4e6; --rail: #eceded;
  --right: #2f62cf; --wrong: #c2481f; --train: #8a93a3; --val: #2f62cf;
}
@media (prefers-color-scheme: dark) { :root {
  --paper: #15171a; --card: #1c1f23; --ink: #e7e9ec; --soft: #98a0ab; --line: #2d3138; --rail: #2a2e34;
  --right: #7aa2ff; --wrong: #ff9169; --train: #7c8696; --val: #7aa2ff;
} }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif;
  -webkit-text-size-adjust: 100%; }
main { max-width: 960px; margin: 0 auto; padding: 40px 20px 72px; }
h1 { font-size: 15px; font-weight: 600; margin: 0; color: var(--soft); letter-spacing: .01em;
  overflow-wrap: anywhere; }
h2 { font-size: 19px; font-weight: 650; margin: 52px 0 4px; letter-spacing: -.01em; }
h3 { font-size: 14px; font-weight: 600; margin: 24px 0 8px; }
p.note { color: var(--soft); margin: 0 0 16px; max-width: 78ch; }
.numbers { display: flex; flex-wrap: wrap; align-items: flex-end; gap: 12px 28px; margin: 10px 0 0; }
.numbers div { line-height: 1.2; }
.numbers b { display: block; font-size: 26px; font-weight: 600; letter-spacing: -.02em;
  font-variant-numeric: tabular-nums; }
.numbers .first b { font-size: 56px; letter-spacing: -.035em; line-height: 1.08; }
.numbers span { color: var(--soft); font-size: 13px; }
.interval { display: block; width: 100%; max-width: 440px; margin: 14px 0 0 -8px; }
.warning { border-left: 3px solid var(--wrong); padding: 6px 14px; margin: 20px 0 0; }
.warning details:last-of-type { border: 0; } .warning summary { padding: 2px 0; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 340px), 1fr)); gap: 16px; }
.charts.pair { gap: 16px 48px; }
figure { margin: 0; }
.chart { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 14px 12px 6px; }
.chart figcaption { display: flex; flex-wrap: wrap; gap: 2px 16px; font-size: 13px; padding: 0 4px 6px; }
.chart svg { display: block; width: 100%; height: auto; }
.key { color: var(--soft); } .key b { color: var(--ink); font-weight: 600; font-variant-numeric: tabular-nums; }
.key::before { content: ""; display: inline-block; width: 14px; height: 3px; border-radius: 2px;
  margin: 0 6px 3px 0; }
.key.train::before { background: var(--train); } .key.val::before { background: var(--val); }
svg text { font: 11px system-ui, sans-serif; fill: var(--soft); font-variant-numeric: tabular-nums; }
svg text.x, svg text.name { text-anchor: middle; } svg text.y { text-anchor: end; }
svg text.name { fill: var(--ink); }
.grid { stroke: var(--line); fill: none; } .rail { fill: var(--rail); } .band { fill: var(--right); opacity: .35; }
.tick { stroke: var(--soft); fill: none; }
.line { fill: none; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; }
.line.train { stroke: var(--train); } .line.val { stroke: var(--val); }
.dot.train { fill: var(--train); } .dot.val { fill: var(--val); }
.bars { display: grid; grid-template-columns: minmax(90px, max-content) 1fr max-content; gap: 7px 12px;
  align-items: center;
  font-size: 14px; }
.bars > * { min-width: 0; overflow-wrap: anywhere; }
.bars .track { height: 8px; border-radius: 4px; background: var(--rail); overflow: hidden; min-width: 60px; }
.bars .track i { display: block; height: 100%; background: var(--right); border-radius: 4px; }
.bars .count { color: var(--soft); font-size: 13px; font-variant-numeric: tabular-nums; text-align: right;
  white-space: nowrap; }
.wide { overflow-x: auto; -webkit-overflow-scrolling: touch; padding-bottom: 4px; }
.network { margin: 2px 0 0; color: var(--soft); overflow-wrap: anywhere; }
/* What is wider than the screen fades at its right edge, and an empty margin lies under the fade at its end. */
.wide:has(.matrix, .map) { display: flex; }
.wide .matrix, .wide .map { flex: none; margin-right: 28px; } .wide .map { flex: 0 1 auto; }
.wide:has(.matrix, .map)::after { content: ""; position: sticky; right: 0; flex: none; width: 28px; margin-left: -28px;
  background: linear-gradient(-90deg, var(--paper) 20%, transparent); pointer-events: none; }
.hint { display: none; }
.wide:focus-visible { outline: 2px solid var(--right); }
.matrix { border-collapse: separate; border-spacing: 2px; font-size: 13px; font-variant-numeric: tabular-nums; }
.matrix th { font-weight: 400; color: var(--soft); padding: 2px 8px 2px 0; text-align: right; white-space: nowrap; }
.matrix thead th { padding: 0 0 6px; text-align: center; vertical-align: bottom; }
.matrix thead span { writing-mode: vertical-rl; transform: rotate(180deg); display: inline-block; }
.matrix tbody th { position: sticky; left: 0; background: var(--paper); max-width: 40vw; overflow: hidden;
  text-overflow: ellipsis; }
.matrix td.corner { background: none; }
.matrix td { width: 40px; min-width: 30px; height: 34px; text-align: center; border-radius: 4px;
  background: var(--rail); }
.matrix td { --tone: var(--wrong); } .matrix td.hit { --tone: var(--right); }
.matrix td[style] { background: color-mix(in srgb, var(--tone) var(--share), var(--rail)); }
.matrix td.full { color: var(--paper); font-weight: 600; }
.map { width: 100%; min-width: 600px; max-width: 800px; aspect-ratio: 1; display: block; image-rendering: pixelated;
  background: var(--card); border: 1px solid var(--line); border-radius: 6px; cursor: crosshair;
  touch-action: pan-x pan-y; }
output { display: block; min-height: 3em; font-size: 14px; color: var(--soft); padding-top: 8px; }
table.plain { border-collapse: collapse; font-size: 14px; width: 100%; }
table.plain th { text-align: left; font-weight: 500; color: var(--soft); }
table.plain th, table.plain td { padding: 5px 12px 5px 0; border-bottom: 1px solid var(--line);
  overflow-wrap: anywhere;
  vertical-align: top; }
table.plain .n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; padding-right: 0; }
.film { margin: 0 0 22px; }
.film figcaption { display: flex; flex-wrap: wrap; gap: 0 10px; font-size: 14px; margin-bottom: 6px; }
.film figcaption span { color: var(--soft); overflow-wrap: anywhere; }
.film .frames { display: grid; grid-template-columns: repeat(8, 1fr); gap: 3px; }
.film a { color: inherit; }
.film img { width: 100%; height: auto; display: block; border-radius: 4px; background: var(--rail); }
.wrong { color: var(--wrong); font-weight: 600; } .right { color: var(--right); font-weight: 600; }
details { border-top: 1px solid var(--line); } details:last-of-type { border-bottom: 1px solid var(--line); }
summary { cursor: pointer; padding: 11px 0; font-weight: 500; }
details > :not(summary) { margin-bottom: 18px; }
pre { margin: 0; padding: 14px; background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  overflow-x: auto;
  font: 12.5px/1.5 ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
@media (max-width: 600px) {
  main { padding: 24px 16px 56px; }
  .numbers { gap: 12px 30px; } .numbers .first { flex-basis: 100%; } .numbers b { font-size: 22px; }
  .film .frames { grid-template-columns: repeat(4, 1fr); }
  .orders { grid-template-columns: max-content 1fr; } .orders .count { grid-column: 1 / -1; text-align: left;
    margin: -4px 0 8px; }
}
@media print { details > * { display: block; } main { max-width: none; } }
"""

# Cells arrive as [label, named class, videos]; the picture shows them, this tells their names.
MATRIX_SCRIPT = """
const map = document.querySelector(".map"), say = document.querySelector("output");
const { names, cells } = JSON.parse(document.querySelector("#cells").textContent);
const counts = new Map(cells.map(([row, column, count]) => [row * names.length + column, count]));
const videos = names.map(() => 0);
cells.forEach(([row, , count]) => { videos[row] += count; });
const read = (event) => {
  const box = map.getBoundingClientRect(), n = names.length;
  const at = (place, size) => Math.min(Math.max(Math.floor(place / size * n), 0), n - 1);
  const column = at(event.clientX - box.left, box.width), row = at(event.clientY - box.top, box.height);
  const count = counts.get(row * n + column) || 0;
  say.textContent = `${count} of ${videos[row]} videos of "${names[row]}" were named "${names[column]}"`;
};
map.addEventListener("pointermove", read);
map.addEventListener("pointerdown", read);
"""
