// Forms of an item: each shows itself, calls send(answer) at the end, and takes keys (true = used).
import { button, element } from "/page/parts.js";

export function pair({ item, question, choices, send }) {
  if (item.strengths.length > 1) return graded(item.strengths, { question, choices, send });
  question.textContent = "Which answer is better?";
  const vote = (choice) => send({ choice });
  choices.className = "three";
  choices.replaceChildren(
    button("A is better", "1", () => vote("A"), "vote"), button("Tie", "0", () => vote("tie"), "vote"),
    button("B is better", "2", () => vote("B"), "vote"));
  const keys = { 1: "A", a: "A", arrowleft: "A", 2: "B", b: "B", arrowright: "B", 0: "tie", t: "tie" };
  return { key(event) {
    const choice = keys[event.key.toLowerCase()];
    if (choice) vote(choice);
    return Boolean(choice);
  } };
}

// The same with how much better, the strongest at the ends; numbers count the buttons from left to right, 0 and t tie.
function graded(strengths, { question, choices, send }) {
  question.textContent = "Which answer is better, and by how much?";
  const grades = strengths.map((words, k) => ({ words, strength: k + 1 }));
  const of = (slot) => ({ words, strength }) => ({ label: `${slot} ${words}`, slot, strength, answer: { choice: slot, strength } });
  const offered = [...grades.map(of("A")).reverse(), { label: "Tie", slot: "tie", answer: { choice: "tie" } }, ...grades.map(of("B"))];
  choices.className = "graded";
  choices.replaceChildren(...offered.map(({ label, slot, strength, answer }, k) => {
    const made = button(label, `${k + 1}`, () => send(answer), "vote");
    made.dataset.of = slot;
    made.style.setProperty("--row", strength ? strengths.length - strength + 1 : strengths.length + 1);
    return made;
  }));
  return { key(event) {
    const key = event.key.toLowerCase();
    const chosen = key === "0" || key === "t" ? offered[strengths.length] : offered[Number(key) - 1];
    if (chosen) send(chosen.answer);
    return Boolean(chosen);
  } };
}

// A row of ratings per answer and criterion; numbers rate the marked row and move on to the next open one.
export function likert({ item, boxes, question, choices, send }) {
  const [low, high] = item.scale;
  question.textContent = `Rate every answer from ${low}, worst, to ${high}, best. Number keys rate the marked row.`;
  const done = button("Send", "Enter", finish, "main");
  const count = element("p", { className: "count", ariaLive: "polite" });
  choices.className = "rated";
  choices.replaceChildren(count, done);
  const rows = boxes.flatMap((box) => item.criteria.map((criterion) => {
    const row = box.appendChild(ratings(`${box.dataset.slot}/${criterion}`, criterion, low, high));
    row.onchange = check;
    return { row, slot: box.dataset.slot, criterion };
  }));
  const rating = ({ row }) => row.querySelector("input:checked");
  const focus = ({ row }) => (row.querySelector("input:checked") ?? row.querySelector("input")).focus();
  function check() {
    const given = rows.filter(rating).length;
    count.textContent = `${given} of ${rows.length} rated`;
    done.disabled = given < rows.length;
  }
  function finish() {
    if (done.disabled) return;
    const likert = {};
    rows.forEach((r) => { (likert[r.criterion] ??= {})[r.slot] = Number(rating(r).value); });
    send({ likert });
  }
  check();
  rows[0].row.querySelector("input").focus({ preventScroll: true });
  return { key(event) {
    if (event.key === "Enter" && !document.activeElement.matches("button")) { finish(); return true; }
    const value = Number(event.key);
    if (event.key.trim() === "" || !(value >= low && value <= high)) return false;
    const focused = rows.findIndex(({ row }) => row.contains(document.activeElement));
    const now = focused >= 0 ? focused : Math.max(0, rows.findIndex((r) => !rating(r)));
    rows[now].row.querySelector(`input[value="${value}"]`).checked = true;
    check();
    const open = rows.slice(now + 1).find((r) => !rating(r)) ?? rows.find((r) => !rating(r));
    if (open) focus(open); else done.focus();
    return true;
  } };
}

function ratings(name, criterion, low, high) {
  const row = element("fieldset", {}, element("legend", { textContent: criterion }));
  for (let value = low; value <= high; value += 1) {
    row.append(element("label", { textContent: value }, element("input", { type: "radio", name, value })));
  }
  return row;
}
