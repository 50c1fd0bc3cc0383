// Progress, agreement and annotators of the project.
import { element } from "/page/parts.js";

const token = encodeURIComponent(location.pathname.split("/").pop());
const at = (id) => document.getElementById(id);
const short = (value) => (typeof value === "number" && !Number.isInteger(value) ? value.toFixed(3) : value ?? "");

function fill(table, head, rows) {
  const row = (cells, kind) => { const line = element("tr"); line.append(...cells.map((c) => element(kind, { textContent: short(c) }))); return line; };
  table.replaceChildren(row(head, "th"), ...rows.map((cells) => row(cells, "td")));
}

async function show() {
  const reply = await fetch(`/api/admin/${token}`);
  const found = await reply.json();
  if (!reply.ok) { at("problem").textContent = found.detail; return; }
  const { items, complete, done = 0 } = found.progress;
  at("bar").max = Math.max(1, items);
  at("bar").value = complete;
  at("progress").textContent = `${complete} of ${items} items complete, ${done} answers`;
  const numbers = found.agreement;
  const keys = Object.keys(numbers).filter((k) => !k.endsWith("/ci_low") && !k.endsWith("/ci_high"));
  fill(at("agreement"), ["", "value", "low", "high"],
    keys.map((k) => [k, numbers[k], numbers[`${k}/ci_low`], numbers[`${k}/ci_high`]]));
  const people = found.annotators;
  if (people.length) fill(at("annotators"), Object.keys(people[0]), people.map(Object.values));
}

at("export").href = `/api/admin/${token}/export.jsonl`;
at("again").onclick = show;
show();
