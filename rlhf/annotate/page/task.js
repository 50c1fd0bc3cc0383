// One annotator at work. Texts of models and prompts are put in with textContent only: they are never markup.
import { showGuidelines, element } from "/page/parts.js";
import { pair, ranking, likert } from "/page/forms.js";

const FORMS = { pair, ranking, likert };
const api = `/api/${encodeURIComponent(location.pathname.split("/").pop())}`;
const at = (id) => document.getElementById(id);
let item = null, form = null, seen = 0, since = 0, busy = false;

async function call(path, body) {
  const how = body === undefined ? {} :
    { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  const reply = await fetch(api + path, how);
  const value = await reply.json();
  if (!reply.ok) throw new Error(typeof value.detail === "string" ? value.detail : "the server refused this", { cause: reply.status });
  return value;
}

// Time counts only while the page is in sight.
function tick() { if (!document.hidden) { seen += (performance.now() - since) / 1000; } since = performance.now(); }
document.addEventListener("visibilitychange", () => { if (document.hidden) seen += (performance.now() - since) / 1000; since = performance.now(); });

async function guarded(work) {
  if (busy) return;
  busy = true;
  at("problem").textContent = "";
  try { await work(); } catch (error) {  // an unknown link (403) stays unknown: its own text says what to do
    at("problem").textContent = error.cause === 403 ? `${error.message}.` : `${error.message}. Nothing was lost: try again.`;
  }
  busy = false;
}

async function next() {
  const found = await call("/next");
  at("name").textContent = found.name;
  const { answered, left } = found.progress;
  at("progress").textContent = `${answered} of ${answered + left}`;
  at("bar").max = Math.max(1, answered + left);
  at("bar").value = answered;
  showGuidelines(at("guidelines"), found.guidelines);
  at("work").hidden = found.done;
  at("end").hidden = !found.done;
  item = found.done ? null : found;
  form = null;
  if (item) show();
}

function show() {
  at("prompt").textContent = item.prompt;
  at("flag").checked = false;
  at("comment").value = "";
  at("more").open = false;
  const boxes = item.slots.map(({ slot, text }) => {
    const box = element("article", { className: "answer" });
    box.dataset.slot = slot;
    box.append(element("h2", { textContent: slot }), element("div", { className: "text", textContent: text }));
    return box;
  });
  at("answers").replaceChildren(...boxes);
  form = FORMS[item.form]({ item, boxes, question: at("question"), choices: at("choices"), send });
  seen = 0;
  since = performance.now();
  window.scrollTo(0, 0);
}

function send(answer) {
  tick();
  const body = { assignment: item.assignment, answer, seconds: Math.round(seen * 10) / 10,
    flagged: at("flag").checked, comment: at("comment").value };
  return guarded(async () => { await call("/answer", body); await next(); });
}

const undo = () => guarded(async () => { await call("/undo", {}); await next(); });
const skip = () => item && guarded(async () => {
  await call("/skip", { assignment: item.assignment, comment: at("comment").value });
  await next();
});
at("undo").onclick = at("back").onclick = undo;
at("skip").onclick = skip;

document.addEventListener("keydown", (event) => {
  if (event.target.matches("textarea") || event.ctrlKey || event.metaKey || event.altKey) return;
  const keys = { u: undo, s: skip, g: () => { at("guide").open = !at("guide").open; },
    f: () => { at("flag").checked = !at("flag").checked; at("more").open = true; } };
  const own = keys[event.key.toLowerCase()];
  if (own && !event.shiftKey) { event.preventDefault(); own(); } else if (form && form.key(event)) event.preventDefault();
});

guarded(next);
