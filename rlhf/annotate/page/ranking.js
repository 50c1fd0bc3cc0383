// Best first: press letters or numbers or tap answers in order ("=" ties), or drag answers, or the chips of the order.
import { button, element } from "/page/parts.js";
import { draggable } from "/page/drag.js";

export function ranking({ item, boxes, question, choices, send }) {
  question.textContent = "Put the answers in order, best first: tap them, press their letters, or drag them.";
  const slots = item.slots.map(({ slot }) => slot);
  let groups = [], tied = false;
  const placeOf = (slot) => groups.findIndex((group) => group.includes(slot));
  const without = (slot) => groups.map((g) => g.filter((s) => s !== slot)).filter((g) => g.length);
  const change = (to, tie = false) => { groups = to; tied = tie && groups.length > 0 && groups.flat().length < slots.length; paint(); };

  function put(slot) {
    const rest = without(slot);
    if (tied && rest.length) rest.at(-1).push(slot); else rest.push([slot]);
    change(rest);
  }
  // Into the other's place: behind it when coming from before it, else before it; what has no place counts as last.
  function move(from, onto) {
    if (!groups.length) groups = boxes.map((box) => [box.dataset.slot]);
    if (from === onto) { if (placeOf(from) < 0) put(from); return; }
    const forward = placeOf(from) >= 0 && placeOf(from) < placeOf(onto), rest = without(from);
    const target = rest.findIndex((group) => group.includes(onto));
    rest.splice(target < 0 ? rest.length : target + Number(forward), 0, [from]);
    change(rest);
  }
  function moveBox(from, onto) {
    move(from, onto);
    const order = [...groups.flat(), ...slots];
    boxes.sort((a, b) => order.indexOf(a.dataset.slot) - order.indexOf(b.dataset.slot));
    boxes[0].parentElement.append(...boxes);
  }
  // Ties two neighbours, or parts them.
  function toggle(left, right) {
    const [i, j] = [placeOf(left), placeOf(right)], whole = groups[i], cut = whole.indexOf(right);
    const parts = i === j ? [whole.slice(0, cut), whole.slice(cut)] : [[...whole, ...groups[j]]];
    change([...groups.slice(0, i), ...parts, ...groups.slice(j + 1)]);
  }
  function back() { const last = groups.flat().at(-1); if (last) change(without(last)); }
  function finish() { if (!done.disabled) send({ ranking: groups }); }

  const done = button("Send", "Enter", finish, "main");
  const tie = button("Tie next", "=", () => change(groups, true));
  const again = button("Start over", "", () => change([]));
  const ladder = element("div", { className: "ladder", ariaLabel: "the order so far, best first" });
  choices.className = "ranked";
  choices.replaceChildren(ladder, tie, again, done);

  function chip(slot, place) {
    const made = element("button", { type: "button", className: place < 0 ? "chip open" : "chip", textContent: slot });
    made.dataset.slot = slot;
    made.ariaLabel = place < 0 ? `${slot}, not placed yet` : `${slot}, place ${place + 1}`;
    made.onclick = () => { if (placeOf(slot) < 0) put(slot); };
    draggable(made, made, () => [...ladder.querySelectorAll(".chip")], (onto) => move(slot, onto.dataset.slot));
    return made;
  }
  function between(left, right) {
    const equal = placeOf(left) === placeOf(right);
    const made = button(equal ? "=" : ">", "", () => toggle(left, right), "between");
    made.title = made.ariaLabel = equal ? `${left} and ${right} are tied: part them` : `${left} is better than ${right}: tie them`;
    return made;
  }
  function paint() {
    const order = groups.flat(), open = slots.filter((slot) => !order.includes(slot));
    const placed = order.flatMap((slot, k) => (k ? [between(order[k - 1], slot)] : []).concat(chip(slot, placeOf(slot))));
    const sign = open.length ? [element("span", { className: "sign", textContent: order.length ? (tied ? "=" : "…") : "to place:" })] : [];
    ladder.replaceChildren(...placed, ...sign, ...open.map((slot) => chip(slot, -1)));
    boxes.forEach((box) => {
      const place = placeOf(box.dataset.slot);
      box.classList.toggle("picked", place >= 0);
      box.querySelector("h2 small").textContent = place < 0 ? "" : `place ${place + 1}${groups[place].length > 1 ? ", tied" : ""}`;
    });
    done.disabled = open.length > 0;
    tie.disabled = !order.length || !open.length || tied;
    again.disabled = !order.length;
  }
  boxes.forEach((box) => {
    box.classList.add("movable");
    box.onclick = () => { if (!String(getSelection())) put(box.dataset.slot); };
    draggable(box.querySelector("h2"), box, () => boxes, (onto) => moveBox(box.dataset.slot, onto.dataset.slot));
  });
  paint();

  function shift(step) {
    const slot = document.activeElement.dataset.slot, order = groups.flat(), onto = order[order.indexOf(slot) + step];
    if (placeOf(slot) >= 0 && onto) move(slot, onto);
    ladder.querySelector(`[data-slot="${slot}"]`).focus();
  }
  return { key(event) {
    const slot = slots[Number(event.key) - 1] ?? slots.find((s) => s === event.key.toUpperCase());
    const onChip = document.activeElement.matches(".chip"), onButton = document.activeElement.matches("button");
    if (slot) put(slot);
    else if (event.key === "=") tie.click();
    else if (event.key === "Backspace") back();
    else if (event.key === "ArrowLeft" && onChip) shift(-1);
    else if (event.key === "ArrowRight" && onChip) shift(1);
    else if (event.key === "Enter" && !onButton) finish();
    else return false;
    return true;
  } };
}
