// One annotator at work: an item is shown, clicks and keys answer it, time counts while the page is in sight.
import { at, element, showGuidelines } from "/page/parts.js";
import { prompt, prose, toggleRaw } from "/page/texts.js";
import { pair, likert } from "/page/forms.js";
import { ranking } from "/page/ranking.js";

const FORMS = { pair, ranking, likert };
const REST = 350;  // milliseconds in which a new item takes no answer: the second click of a double click is not one
let source, item = null, form = null, busy = true, seen = 0, since = 0;

// `from` gives next() -> {done, progress: {answered, left}, guidelines, ...item}, and takes answer(body), skip(body) and
// undo() -> {ok}: promises all; a refusal throws, with cause 409 where the item is gone.
export function work(from) {
  source = from;
  at("guide").open = matchMedia("(min-width: 60rem)").matches;
  at("undo").onclick = at("back").onclick = undo;
  at("skip").onclick = skip;
  at("flag").onclick = flag;
  at("note").onclick = note;
  at("raw").onclick = toggleRaw;
  document.addEventListener("visibilitychange", () => { if (document.hidden) tick(); since = performance.now(); });
  document.addEventListener("keydown", keys);
  busy = false;
  guarded(next);
}

// One thing at a time, and none just after a new item came.
async function guarded(act) {
  if (busy) return;
  busy = true;
  document.querySelector("main").ariaBusy = "true";
  at("problem").textContent = "";
  try { await act(); } catch (error) {
    at("problem").textContent = error.message;
    if (error.cause === 409) await next().catch((again) => { at("problem").textContent = again.message; });
  }
  setTimeout(() => { busy = false; document.querySelector("main").ariaBusy = "false"; }, REST);
}

async function next() {
  const found = await source.next();
  const { answered, left } = found.progress;
  at("progress").textContent = `${answered} of ${answered + left}`;
  at("bar").max = Math.max(1, answered + left);
  at("bar").value = answered;
  showGuidelines(at("guidelines"), found.guidelines);
  at("work").hidden = at("tools").hidden = found.done;
  at("end").hidden = !found.done;
  at("back").hidden = answered === 0;
  item = found.done ? null : found;
  form = item && show();
}

function show() {
  prompt(at("prompt"), item.turns);
  at("flag").ariaPressed = "false";
  at("comment").value = "";
  at("comment").hidden = true;
  document.activeElement?.blur();
  const boxes = item.slots.map(({ slot, text, html }) => {
    const head = element("h2", {}, element("span", { textContent: slot }), element("small"));
    const box = element("article", { className: "answer", ariaLabel: `answer ${slot}` }, head, prose(text, html));
    box.dataset.slot = slot;
    return box;
  });
  at("answers").replaceChildren(...boxes);
  scrollTo(0, 0);
  seen = 0;
  since = performance.now();
  return FORMS[item.form]({ item, boxes, question: at("question"), choices: at("choices"), send });
}

function tick() { seen += (performance.now() - since) / 1000; since = performance.now(); }
const notes = () => ({ assignment: item.assignment, flagged: at("flag").ariaPressed === "true", comment: at("comment").value });

function send(answer) {
  return guarded(async () => {
    if (!document.hidden) tick();
    await source.answer({ ...notes(), answer, seconds: Math.round(seen * 10) / 10 });
    await next();
  });
}
function undo() {
  return guarded(async () => {
    const { ok } = await source.undo();
    if (ok) await next(); else at("problem").textContent = "There is nothing to undo, or others have the item you skipped.";
  });
}
function skip() { if (item) guarded(async () => { await source.skip(notes()); await next(); }); }
function flag() {
  at("flag").ariaPressed = String(at("flag").ariaPressed !== "true");
  if (at("flag").ariaPressed === "true") at("comment").hidden = false;
}
function note() { at("comment").hidden = false; at("comment").focus(); }
function guide() { at("guide").open = !at("guide").open; }

function keys(event) {
  if (event.target.matches("textarea, input:not([type=radio])")) { if (event.key === "Escape") event.target.blur(); return; }
  if (event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
  const own = { u: undo, s: skip, g: guide, f: flag, n: note, r: toggleRaw }[event.key.toLowerCase()];
  const used = form?.key(event);
  if (!used && own) own();
  if (used || own) event.preventDefault();
}
