// The desk without a server: answers stay in this browser, and any part of them can be downloaded at any time.
import { at, button, element } from "/page/parts.js";
import { work } from "/page/desk.js";

const { tasks, guidelines, key } = JSON.parse(at("data").textContent);
const kept = {
  get(name) { try { return localStorage.getItem(name); } catch { return null; } },
  set(name, value) {
    try { localStorage.setItem(name, value); return true; } catch { return false; }
  },
};
const answers = JSON.parse(kept.get(`answers ${key}`) ?? "[]");
let unsaved = false;  // something is neither stored here nor downloaded

const name = element("input", { placeholder: "your name", ariaLabel: "your name", value: kept.get("annotator") ?? "", maxLength: 100 });
name.oninput = () => kept.set("annotator", name.value);
const save = button("Download", "", download, "main");
save.id = "download";
at("name").append(name, save);
at("farewell").textContent = "Download your answers and send the file to whoever gave you this page.";

function keep() {
  unsaved = !kept.set(`answers ${key}`, JSON.stringify(answers));
  if (unsaved) at("progress").title = "This browser keeps nothing: download your answers before you close the page.";
}
function take(answer) { answers.push({ ...answer, at: Date.now() / 1000 }); keep(); }

function download() {
  const who = name.value.trim();
  if (!who || !answers.length) {
    at("problem").textContent = who ? "There are no answers yet." : "Write your name first: it goes into the file.";
    if (!who) name.focus();
    return;
  }
  at("problem").textContent = "";
  const lines = answers.map((answer) => `${JSON.stringify({ ...answer, annotator: who, page: key })}\n`);
  const link = element("a", { href: URL.createObjectURL(new Blob(lines)), download: `answers-${who.replace(/[^\p{L}\p{N}]+/gu, "-")}.jsonl` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  unsaved = false;
}

addEventListener("beforeunload", (event) => { if (unsaved) event.preventDefault(); });
work({
  next: async () => {
    const done = new Set(answers.map((answer) => answer.assignment));
    const task = tasks.find(({ assignment }) => !done.has(assignment));
    return { ...task, done: !task, guidelines, progress: { answered: done.size, left: tasks.length - done.size } };
  },
  answer: async (body) => take(body),
  skip: async (body) => take({ ...body, skipped: true }),
  undo: async () => { const ok = answers.length > 0; answers.pop(); keep(); return { ok }; },
});
