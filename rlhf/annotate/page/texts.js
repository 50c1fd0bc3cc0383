// Texts of strangers: rendered by the server, which makes them safe (rlhf/annotate/markdown.py), or raw, as they were written.
import { at, element } from "/page/parts.js";

let raw = false;
const written = new WeakMap();  // element -> its text in both ways

export function prose(text, html) {
  const made = element("div");
  written.set(made, { text, html });
  paint(made);
  return made;
}

function paint(made) {
  const { text, html } = written.get(made);
  made.className = raw ? "text raw" : "text";
  if (raw) made.textContent = text; else made.innerHTML = html;
  made.querySelectorAll("pre, table").forEach((wide) => { wide.tabIndex = 0; });  // they scroll: keys must reach them
}

export function toggleRaw() {
  raw = !raw;
  at("raw").ariaPressed = String(raw);
  document.querySelectorAll(".text").forEach(paint);
  at("prompt").scrollTop = raw ? 0 : at("prompt").scrollTop;
}

// The last turn of the user, and what comes after it, in sight; earlier turns fold.
export function prompt(place, turns) {
  const last = Math.max(0, turns.findLastIndex(({ role }) => role === "user"));
  const turn = ({ role, text, html }) => element("div", { className: "turn" },
    ...(role ? [element("b", { textContent: role })] : []), prose(text, html));
  const earlier = turns.slice(0, last), count = `${last} earlier turn${last > 1 ? "s" : ""}`;
  const fold = earlier.length ? [element("details", { className: "earlier" }, element("summary", { textContent: count }), ...earlier.map(turn))] : [];
  place.replaceChildren(...fold, ...turns.slice(last).map(turn));
  place.scrollTop = 0;
}

// The prompt stays under the head of the page; what sticks below it must know how high both are.
new ResizeObserver(() => {
  const head = document.querySelector("header").offsetHeight;
  document.body.style.setProperty("--head", `${head}px`);
  document.body.style.setProperty("--top", `${head + at("asked").offsetHeight}px`);
}).observe(at("asked"));
