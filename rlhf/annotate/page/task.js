// The desk on the server: items come and answers go through the personal link.
import { at } from "/page/parts.js";
import { work } from "/page/desk.js";

const api = `/api/${encodeURIComponent(location.pathname.split("/").pop())}`;

async function call(path, body) {
  const how = body === undefined ? {} :
    { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  const reply = await fetch(api + path, how).catch(() => {
    throw new Error("The server cannot be reached. Nothing was lost: try again.");
  });
  const value = await reply.json().catch(() => ({}));
  if (reply.ok) return value;
  const detail = typeof value.detail === "string" ? value.detail : `the server refused this (${reply.status})`;
  throw new Error(`${detail[0].toUpperCase()}${detail.slice(1)}.`, { cause: reply.status });
}

work({
  next: async () => { const found = await call("/next"); at("name").textContent = found.name; return found; },
  answer: (body) => call("/answer", body),
  skip: (body) => call("/skip", body),
  undo: () => call("/undo", {}),
});
