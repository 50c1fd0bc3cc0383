// The same work without a server: answers stay in this browser until they are downloaded.
import { showGuidelines, element } from "/page/parts.js";
import { pair, ranking, likert } from "/page/forms.js";

const FORMS = { pair, ranking, likert };
const at = (id) => document.getElementById(id);
const { tasks, guidelines } = JSON.parse(at("data").textContent);
const KEY = `answers ${tasks.length} ${tasks[0]?.prompt.slice(0, 40)}`;
let answers = JSON.parse(localStorage.getItem(KEY) ?? "[]");
let form = null, since = 0;

const name = element("input", { placeholder: "your name", value: localStorage.getItem("annotator") ?? "", ariaLabel: "your name" });
name.oninput = () => localStorage.setItem("annotator", name.value);
at("name").replaceChildren(name);
const download = element("button", { textContent: "Download answers", id: "download" });
download.onclick = () => {
  const lines = answers.map((answer) => JSON.stringify({ ...answer, annotator: name.value || "anonymous" })).join("\n");
  const link = element("a", { href: URL.createObjectURL(new Blob([`${lines}\n`])), download: `answers-${name.value || "anonymous"}.jsonl` });
  link.click();
};
at("end").append(download);

function keep() { localStorage.setItem(KEY, JSON.stringify(answers)); show(); }

function show() {
  const done = new Set(answers.map((answer) => answer.assignment));
  const item = tasks.find((task) => !done.has(task.assignment));
  at("bar").max = tasks.length;
  at("bar").value = done.size;
  at("progress").textContent = `${done.size} of ${tasks.length}`;
  at("work").hidden = !item;
  at("end").hidden = Boolean(item);
  form = null;
  if (!item) return;
  at("prompt").textContent = item.prompt;
  at("flag").checked = false;
  at("comment").value = "";
  const boxes = item.slots.map(({ slot, text }) => {
    const box = element("article", { className: "answer" });
    box.dataset.slot = slot;
    box.append(element("h2", { textContent: slot }), element("div", { className: "text", textContent: text }));
    return box;
  });
  at("answers").replaceChildren(...boxes);
  const send = (answer) => {
    answers.push({ assignment: item.assignment, answer, seconds: Math.round((performance.now() - since) / 100) / 10,
      flagged: at("flag").checked, comment: at("comment").value });
    keep();
  };
  form = FORMS[item.form]({ item, boxes, question: at("question"), choices: at("choices"), send });
  since = performance.now();
}

const undo = () => { answers.pop(); keep(); };
at("undo").onclick = at("back").onclick = undo;
at("skip").hidden = true;
document.addEventListener("keydown", (event) => {
  if (event.target.matches("textarea, input[placeholder]")) return;
  if (event.key === "u") undo(); else if (form && form.key(event)) event.preventDefault();
});
showGuidelines(at("guidelines"), guidelines);
show();
