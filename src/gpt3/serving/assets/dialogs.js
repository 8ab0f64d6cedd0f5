// Dialogs: code, links, history, names, the key. Text is put in as text, never as HTML.

import { OPTIONS } from "./options.js";  // the sampler's fields

const $ = (id) => document.getElementById(id);

export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function open(title, ...body) {
  $("dialog-title").textContent = title;
  $("dialog-body").replaceChildren(...body);
  if (!$("dialog").open) $("dialog").showModal();
}

export function close() { $("dialog").close(); }

// Browsers have no navigator.clipboard on pages that come by http from another machine.
async function copy(text) {
  if (navigator.clipboard) { await navigator.clipboard.writeText(text); return; }
  const field = element("textarea", { value: text, readOnly: true });
  $("dialog").append(field);
  field.select();
  const copied = document.execCommand("copy");
  field.remove();
  if (!copied) throw new Error("not copied");
}

function copyButton(text) {
  const button = element("button", { textContent: "Copy" });
  button.addEventListener("click", async () => {
    try {
      await copy(text());
      button.focus();
      button.textContent = "Copied";
    } catch { button.textContent = "Select and copy by hand"; }
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
  return button;
}

export function showLink(link) {
  const field = element("input", { value: link, readOnly: true });
  field.setAttribute("aria-label", "Link");
  open("Share by link", element("p", { className: "soft", textContent: "Text and settings are in the link itself, after the #, which browsers do not send to the server." }), field,
    element("div", { className: "row" }, copyButton(() => link)));
  field.select();
}

function quoted(text) { return `'${text.replaceAll("'", "'\\''")}'`; }

function python(value, depth = 1) {
  if (value === null) return "None";
  if (value === true) return "True";
  if (Array.isArray(value)) return `[${value.map((item) => python(item, depth)).join(", ")}]`;
  if (typeof value === "object") return `{${Object.entries(value).map(([k, v]) => `${JSON.stringify(k)}: ${python(v, depth)}`).join(", ")}}`;
  return JSON.stringify(value);
}

const EXTRAS = Object.keys(OPTIONS).filter((name) => !OPTIONS[name]["x-openai"]);  // the client takes them as extra_body

export function code(path, body) {
  const own = Object.entries(body).filter(([name]) => !EXTRAS.includes(name));
  const extra = Object.fromEntries(Object.entries(body).filter(([name]) => EXTRAS.includes(name)));
  const lines = own.map(([name, value]) => `    ${name}=${python(value)},`);
  if (Object.keys(extra).length) lines.push(`    extra_body=${python(extra)},`);
  const chat = path.includes("chat");
  return {
    curl: `curl ${location.origin}${path} \\\n  -H "Content-Type: application/json" \\\n  -H "Authorization: Bearer $GPT3_API_KEY" \\\n  -d ${quoted(JSON.stringify(body, null, 2))}`,
    Python: `import os\nfrom openai import OpenAI\n\nclient = OpenAI(base_url="${location.origin}/v1", api_key=os.environ.get("GPT3_API_KEY", "none"))\n` +
      `answer = client.${chat ? "chat.completions" : "completions"}.create(\n${lines.join("\n")}\n)\nprint(answer.choices[0].${chat ? "message.content" : "text"})`,
  };
}

export function showCode(path, body) {
  const texts = code(path, body), shown = element("pre", { tabIndex: 0 });
  let now = "curl";
  const tabs = element("div", { className: "choice", role: "group" });
  const select = (name) => {
    now = name;
    shown.textContent = texts[name];
    for (const tab of tabs.children) tab.setAttribute("aria-pressed", tab.textContent === name);
  };
  for (const name of Object.keys(texts)) {
    const tab = element("button", { textContent: name });
    tab.addEventListener("click", () => select(name));
    tabs.append(tab);
  }
  select(now);
  open("View code", element("div", { className: "row" }, tabs, copyButton(() => texts[now])), shown);
}

export function showHistory(entries, restore, clear) {
  const list = entries.map((entry) => {
    const when = new Date(entry.time).toLocaleString(), output = entry.output ?? "";
    const button = element("button", { className: "entry" }, element("b", { textContent: entry.text.trim().slice(-120) || "(empty)" }),
      element("span", { textContent: output.trim().slice(0, 120) }),
      element("small", { textContent: `${when} · ${(entry.text + output).length.toLocaleString()} characters${entry.messages ? " · chat" : ""}` }));
    button.addEventListener("click", () => { close(); restore(entry); });
    return button;
  });
  const wipe = element("button", { textContent: "Clear history" });
  wipe.addEventListener("click", () => { clear(); close(); });
  const note = element("p", { className: "soft", textContent: list.length ? "Kept in this browser only." : "Nothing yet. What you submit is kept here, in this browser only." });
  open("History", note, ...list, ...(list.length ? [element("div", { className: "row" }, wipe)] : []));
}

export const size = (bytes) => (bytes < 1e9 ? `${Math.max(1, Math.round(bytes / 1e6)).toLocaleString()} MB` : `${(bytes / 1e9).toFixed(1)} GB`);

// Models that the server can load: its runs, then published ones.
export function showModels(entries, load) {
  const list = entries.map((entry) => {
    const where = entry.stored ? `${size(entry.bytes)} on this machine` : `about ${size(entry.bytes)} to download`;
    const about = [entry.kind === "run" ? "run" : entry.id, entry.parameters && `${entry.parameters} parameters`, where].filter(Boolean).join(" · ");
    const button = element("button", { className: "entry" }, element("b", { textContent: entry.name }), element("small", { textContent: about }));
    if (entry.error) button.append(element("small", { className: "bad", textContent: entry.error }));
    button.addEventListener("click", () => { close(); load(entry); });
    return button;
  });
  const note = list.length ? "Runs of this folder, and published models." : "There is none: no run in ./runs, and no published model fits. Train one: gpt3 train";
  open("Load a model", element("p", { className: "soft", textContent: note }), ...list);
}

// Asks for a line of text.
export function ask(title, note, secret = false) {
  return new Promise((resolve) => {
    const field = element("input", { type: secret ? "password" : "text", maxLength: 200, autocomplete: "off" });
    field.setAttribute("aria-label", title);
    const fine = element("button", { textContent: "OK", type: "submit" });
    const form = element("form", {}, field, fine);
    let given = null;
    form.addEventListener("submit", (event) => { event.preventDefault(); given = field.value.trim() || null; close(); });
    $("dialog").addEventListener("close", () => resolve(given), { once: true });
    open(title, element("p", { className: "soft", textContent: note }), form);
    field.focus();
  });
}
