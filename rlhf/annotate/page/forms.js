// The three forms of an item. Each shows itself, calls send(answer) at the end, and takes keys (true = used).
import { element } from "/page/parts.js";

export function pair({ boxes, question, choices, send }) {
  question.textContent = "Which answer is better?";
  const choose = (choice) => send({ choice });
  const button = (label, choice) => element("button", { textContent: label, onclick: () => choose(choice) });
  choices.replaceChildren(button("A (1 or ←)", "A"), button("Tie (0 or ↓)", "tie"), button("B (2 or →)", "B"));
  boxes.forEach((box) => { box.ondblclick = () => choose(box.dataset.slot); });
  const keys = { 1: "A", a: "A", ArrowLeft: "A", 2: "B", b: "B", ArrowRight: "B", 0: "tie", t: "tie", ArrowDown: "tie" };
  return { key(event) {
    const choice = keys[event.key] ?? keys[event.key.toLowerCase()];
    if (choice) choose(choice);
    return Boolean(choice);
  } };
}

// Best first: press the letters (or numbers) in order, "=" ties the next with the last; or drag a box onto a place.
export function ranking({ item, boxes, question, choices, send }) {
  question.textContent = "Order the answers, best first: press their letters or tap them; = makes the next a tie. Or drag them.";
  const slots = item.slots.map(({ slot }) => slot);
  let groups = [], tied = false;
  const done = element("button", { textContent: "Send (Enter)", className: "main", onclick: () => finish() });
  const tie = element("button", { textContent: "Tie with next (=)", onclick: () => { tied = groups.length > 0; paint(); } });
  const again = element("button", { textContent: "Start over (⌫)", onclick: () => { groups = []; tied = false; paint(); } });
  const shown = element("p", { className: "text" });
  choices.replaceChildren(shown, tie, again, done);

  function put(slot) {
    groups = groups.map((g) => g.filter((s) => s !== slot)).filter((g) => g.length);
    if (tied && groups.length) groups[groups.length - 1].push(slot); else groups.push([slot]);
    tied = false;
    paint();
  }
  function paint() {
    const order = groups.map((g) => g.join(" = ")).join("  >  ");
    shown.textContent = (order || "nothing ordered yet") + (tied ? "  = …" : "");
    const placed = groups.flat();
    boxes.forEach((box) => {
      const place = groups.findIndex((g) => g.includes(box.dataset.slot));
      box.classList.toggle("picked", place >= 0);
      box.querySelector("h2").dataset.place = place;
      box.querySelector("h2").textContent = box.dataset.slot + (place >= 0 ? ` — place ${place + 1}` : "");
    });
    done.disabled = placed.length !== slots.length;
  }
  function finish() { if (!done.disabled) send({ ranking: groups }); }
  function drop(from, onto) {
    const flat = (groups.flat().length ? groups : slots.map((s) => [s])).map((g) => [...g]);
    const rest = flat.map((g) => g.filter((s) => s !== from)).filter((g) => g.length);
    slots.filter((s) => s !== from && !rest.flat().includes(s)).forEach((s) => rest.push([s]));
    rest.splice(Math.max(0, rest.findIndex((g) => g.includes(onto))), 0, [from]);
    groups = rest;
    paint();
  }
  boxes.forEach((box) => {
    box.draggable = true;
    box.onclick = () => put(box.dataset.slot);
    box.ondragstart = (event) => event.dataTransfer.setData("text/plain", box.dataset.slot);
    box.ondragover = (event) => { event.preventDefault(); box.classList.add("over"); };
    box.ondragleave = () => box.classList.remove("over");
    box.ondrop = (event) => {
      event.preventDefault();
      box.classList.remove("over");
      const from = event.dataTransfer.getData("text/plain");
      if (slots.includes(from) && from !== box.dataset.slot) drop(from, box.dataset.slot);
    };
  });
  paint();
  return { key(event) {
    const slot = slots[Number(event.key) - 1] ?? slots.find((s) => s === event.key.toUpperCase());
    if (slot) put(slot);
    else if (event.key === "=") tie.onclick();
    else if (event.key === "Backspace") again.onclick();
    else if (event.key === "Enter") finish();
    else return false;
    return true;
  } };
}

// A row of ratings per answer and criterion; numbers rate the row in focus and move on.
export function likert({ item, boxes, question, choices, send }) {
  const [low, high] = item.scale;
  question.textContent = `Rate every answer: ${low} is worst, ${high} is best. Numbers rate the marked row.`;
  const rows = [];
  const done = element("button", { textContent: "Send (Enter)", className: "main", onclick: () => finish() });
  choices.replaceChildren(done);
  boxes.forEach((box) => item.criteria.forEach((criterion) => {
    const row = element("fieldset");
    row.append(element("legend", { textContent: criterion }));
    for (let value = low; value <= high; value += 1) {
      const label = element("label", { textContent: value });
      const input = element("input", { type: "radio", name: `${box.dataset.slot}/${criterion}`, value });
      input.onchange = () => check();
      label.append(input);
      row.append(label);
    }
    box.append(row);
    rows.push({ row, slot: box.dataset.slot, criterion });
  }));
  const rating = ({ row }) => row.querySelector("input:checked");
  function check() { done.disabled = !rows.every(rating); }
  function finish() {
    if (done.disabled) return;
    const likert = {};
    rows.forEach((r) => { (likert[r.criterion] ??= {})[r.slot] = Number(rating(r).value); });
    send({ likert });
  }
  check();
  rows[0].row.querySelector("input").focus();
  return { key(event) {
    if (event.key === "Enter") { finish(); return true; }
    const value = Number(event.key);
    if (!(value >= low && value <= high)) return false;
    const focused = rows.findIndex(({ row }) => row.contains(document.activeElement));
    const now = rows[focused >= 0 ? focused : rows.findIndex((r) => !rating(r))] ?? rows[0];
    now.row.querySelector(`input[value="${value}"]`).checked = true;
    check();
    const open = rows.find((r) => !rating(r));
    (open ? open.row.querySelector("input") : done).focus();
    return true;
  } };
}
