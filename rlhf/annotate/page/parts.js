// Small pieces of pages. Everything that is put in place is text, never markup.
export const at = (id) => document.getElementById(id);

export function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

// A button with the key that does the same.
export function button(label, hint, onclick, className = "") {
  const keys = hint ? [" ", element("kbd", { textContent: hint, ariaHidden: "true" })] : [];
  return element("button", { type: "button", onclick, className }, element("span", { textContent: label }), ...keys);
}

// Lines, "# " headings, "- " points and "> " examples.
export function showGuidelines(place, text) {
  if (place.dataset.text === text) return;
  place.dataset.text = text;
  place.replaceChildren();
  const last = (name) => (place.lastElementChild?.localName === name ? place.lastElementChild : place.appendChild(element(name)));
  for (const line of text.split("\n").filter((each) => each.trim())) {
    const words = line.slice(2);
    if (line.startsWith("# ")) place.append(element("h3", { textContent: words }));
    else if (line.startsWith("- ")) last("ul").append(element("li", { textContent: words }));
    else if (line.startsWith("> ")) last("blockquote").append(element("p", { textContent: words }));
    else place.append(element("p", { textContent: line }));
  }
}
