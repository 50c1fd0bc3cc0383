// Tables of text and numbers that fold into blocks on a phone.
import { element } from "/page/parts.js";

export function number(value, digits = 3) {
  if (typeof value !== "number") return String(value ?? "");
  return Number.isInteger(value) ? value.toLocaleString("en") : value.toFixed(digits);
}
export const share = (value) => (value === undefined || value === null ? "" : `${Math.round(100 * value)}%`);

// A number with its interval: x [low, high].
export function estimate(numbers, key) {
  if (numbers[key] === undefined) return "";
  const [low, high] = [numbers[`${key}/ci_low`], numbers[`${key}/ci_high`]];
  if (low === undefined || high === undefined) return number(numbers[key]);
  const [value, from, to] = [numbers[key], low, high].map((x) => x.toFixed(3));
  return element("span", {}, value, " ", element("small", { textContent: `[${from}, ${to}]` }));
}

// `columns` are [heading, row => text or element]; columns where every cell is empty are left out.
export function table(columns, rows) {
  const cells = rows.map((row) => columns.map(([, cell]) => cell(row) ?? ""));
  const shown = columns.map((_, c) => c === 0 || cells.some((row) => row[c] !== ""));
  const kept = (list) => list.filter((_, c) => shown[c]);
  const head = element("tr", {}, ...kept(columns).map(([heading]) => element("th", { scope: "col", textContent: heading })));
  const body = cells.map((row) => element("tr", {}, ...kept(row).map((content, c) => {
    const cell = element(c ? "td" : "th", c ? {} : { scope: "row" }, element("span", {}, content));
    cell.dataset.label = kept(columns)[c][0];
    cell.classList.toggle("none", content === "");
    return cell;
  })));
  return element("div", { className: "scroll" }, element("table", {}, element("thead", {}, head), element("tbody", {}, ...body)));
}
