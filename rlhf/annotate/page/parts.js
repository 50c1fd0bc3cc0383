// Small pieces of pages.
export function element(name, properties = {}) { return Object.assign(document.createElement(name), properties); }

// Lines, "# " headings and "- " points; everything is text.
export function showGuidelines(place, text) {
  if (place.dataset.text === text) return;
  place.dataset.text = text;
  place.replaceChildren(...text.split("\n").filter((line) => line.trim()).map((line) => {
    if (line.startsWith("# ")) return element("h3", { textContent: line.slice(2) });
    if (line.startsWith("- ")) return element("p", { textContent: `• ${line.slice(2)}` });
    return element("p", { textContent: line });
  }));
}
