// Progress, annotators, agreement, flags and notes of the project.
import { at, element } from "/page/parts.js";
import { estimate, number, share, table } from "/page/tables.js";

const token = encodeURIComponent(location.pathname.split("/").pop());

const FLAGS = {
  gold: ["gold", "often wrong on items with a known answer"], side: ["one side", "chooses one side of the screen too often"],
  fast: ["too fast", "many votes took too little time for their length"], pattern: ["pattern", "long runs of one side, or of sides in turn"],
  copies: ["copies", "gives the same verdicts as somebody else"], low: ["disagrees", "agrees with the others less than most do"],
};
const MEASURES = {
  percent: "Same verdict", "kappa/fleiss": "Fleiss' κ", "alpha/nominal": "α nominal", "alpha/ordinal": "α ordinal",
  "alpha/interval": "α interval", "kappa/fleiss/n_units": "Pairs in κ",
};
const SIZES = {
  n_votes: "Votes", n_verdicts: "Verdicts on pairs", n_units: "Labelled pairs", n_prompts: "Prompts", n_annotators: "Annotators",
  n_gold_checks: "Gold checks", votes_per_unit: "Votes per pair", ties: "Ties", unanimous: "Unanimous pairs", first_side: "First side chosen",
};
const SHARES = ["ties", "unanimous", "first_side"];

function cards({ items, complete, done = 0, open = 0, skipped = 0, expired = 0 }, numbers) {
  const sizes = Object.entries(SIZES).filter(([key]) => key in numbers)
    .map(([key, label]) => [label, SHARES.includes(key) ? share(numbers[key]) : number(numbers[key], 1)]);
  const all = [["Items complete", `${number(complete)} of ${number(items)}`], ["Answers", number(done)], ["In hand now", number(open)],
    ["Skipped", number(skipped)], ["Held too long", number(expired)], ...sizes];
  const card = ([label, value]) => element("li", {}, element("b", { textContent: value }), element("span", { textContent: label }));
  at("cards").replaceChildren(...all.map(card));
}

function badges(flags) {
  const found = (flags ?? "").split(" ").filter(Boolean).map((flag) => FLAGS[flag] ?? [flag, flag]);
  const badge = ([label, title]) => element("span", { className: "badge", textContent: label, title });
  return found.length ? element("span", {}, ...found.map(badge)) : "";
}

// People with a link first come with what they did; whoever only voted in the tasks' file comes after.
function annotators(people, rows) {
  const invited = new Map(people.map((person) => [person.name, person]));
  const quality = new Map(rows.map((row) => [row.annotator, row]));
  const names = [...new Set([...rows.map((row) => row.annotator), ...invited.keys()])];
  const joined = names.map((name) => ({ name, ...invited.get(name), ...quality.get(name) }));
  const gold = (row) => (row.gold_votes ? `${share(row.gold_accuracy)} of ${number(row.gold_votes)}` : "");
  at("annotators").replaceChildren(table([
    ["Annotator", (row) => row.name], ["Flags", (row) => badges(row.flags)], ["Answers", (row) => (row.token ? number(row.done ?? 0) : "")],
    ["Skipped", (row) => number(row.skipped)], ["Agreement", (row) => share(row.leave_one_out)], ["Gold", gold], ["Ties", (row) => share(row.ties)],
    ["First side", (row) => share(row.first_side)], ["Longer", (row) => share(row.longer)],
    ["Seconds", (row) => (row.seconds == null ? "" : row.seconds.toFixed(1))], ["Bonus", (row) => row.bonus?.toFixed(2)],
    ["Link", (row) => (row.token ? element("a", { href: `/a/${row.token}`, textContent: "open" }) : "")],
  ], joined));
  at("numbers").replaceChildren(rows.length ? table(Object.keys(rows[0]).map((key) => [key, (row) => number(row[key])]), rows) : "");
}

// The flat keys <group>/<name>/<measure>; whatever fits no group is shown by its own name.
function agreement(numbers) {
  const keys = Object.keys(numbers).filter((key) => !key.endsWith("/ci_low") && !key.endsWith("/ci_high"));
  const used = new Set(Object.keys(SIZES));
  const section = (title, first, prefixes, least = 1) => {
    const rows = prefixes.filter(([, prefix]) => Object.keys(MEASURES).some((m) => prefix + m in numbers));
    rows.forEach(([, prefix]) => Object.keys(MEASURES).forEach((m) => used.add(prefix + m)));
    const columns = Object.entries(MEASURES).map(([m, label]) => [label, ([, prefix]) => estimate(numbers, prefix + m)]);
    return rows.length >= least ? [element("h3", { textContent: title }), table([[first, ([name]) => name], ...columns], rows)] : [];
  };
  const under = (group) => {
    const names = keys.filter((key) => key.startsWith(`${group}/`)).map((key) => key.slice(group.length + 1).replace(/\/(percent|kappa|alpha)(\/.*)?$/, ""));
    return [...new Set(names)].map((name) => [name, `${group}/${name}/`]);
  };
  const pairs = keys.filter((key) => key.startsWith("kappa/cohen/"));
  pairs.forEach((key) => used.add(key));
  const cohen = pairs.length ? [element("h3", { textContent: "Pairs of annotators" }), table([
    ["Pair", (key) => (key === "kappa/cohen/mean" ? "Mean of all pairs" : key.slice(12).replace("/", " and "))],
    ["Cohen's κ", (key) => estimate(numbers, key)],
  ], pairs)] : [];
  const parts = [
    ...section("Overall", "", [["All votes", ""], ["Calibration session", "calibration/"]]),
    ...section("By criterion", "Criterion", under("criterion"), 2), ...section("By domain", "Domain", under("domain")),
    ...section("Ratings themselves", "Criterion", under("likert")), ...cohen,
  ];
  const rest = keys.filter((key) => !used.has(key));
  if (rest.length) parts.push(element("h3", { textContent: "More" }), table([["", (key) => key], ["", (key) => estimate(numbers, key)]], rest));
  const legend = "Brackets are 95% intervals, prompts resampled. α is Krippendorff's; 0 is chance, 1 is perfect. " +
    "Open-ended preferences often have 0.2 to 0.4.";
  const caption = element("p", { className: "caption", textContent: parts.length ? legend : "No votes yet." });
  at("agreement").replaceChildren(element("h2", { textContent: "Agreement" }), ...parts, caption);
}

function notes(found) {
  at("noted").hidden = !found.length;
  const what = (note) => [note.flagged && "flagged", note.skipped && "skipped"].filter(Boolean).join(", ");
  at("notes").replaceChildren(table([["Annotator", (note) => note.annotator], ["", what],
    ["Note", (note) => note.comment], ["Prompt", (note) => (note.prompt.length > 160 ? `${note.prompt.slice(0, 160)} …` : note.prompt)]], found));
}

async function show() {
  const reply = await fetch(`/api/admin/${token}`);
  const found = await reply.json();
  at("problem").textContent = reply.ok ? "" : found.detail;
  if (!reply.ok) return;
  const { items, complete, done = 0 } = found.progress;
  at("bar").max = Math.max(1, items);
  at("bar").value = complete;
  at("progress").textContent = `${complete} of ${items} items complete, ${done} answers`;
  cards(found.progress, found.agreement);
  annotators(found.people, found.annotators);
  agreement(found.agreement);
  notes(found.notes);
}

at("export").href = `/api/admin/${token}/export.jsonl`;
at("again").onclick = show;
show();
