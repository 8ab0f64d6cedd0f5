// The page: what its buttons and keys do.

import * as api from "./api.js";
import { Card } from "./card.js";
import { Chat } from "./chat.js";
import { Counter } from "./counter.js";
import * as dialogs from "./dialogs.js";
import { Loader } from "./loading.js";
import { LABELS, Paper } from "./paper.js";
import * as presets from "./presets.js";
import * as settings from "./settings.js";
import * as writing from "./writing.js";

const $ = (id) => document.getElementById(id);
const paper = new Paper($("text"), $("shades"));
const second = new Paper($("second-text"), $("second-shades"));  // what another model makes of the same prompt
const chat = new Chat();
const counter = new Counter(paper, chat, () => ({ model: currentModel(), chatting: mode === "chat", busy: Boolean(running) }), saveLater);
const card = new Card(paper, () => running !== null, branch);
const loader = new Loader({ busy: () => running !== null, take, problem });
const CONTROL_ENTER = /Mac|iP/.test(navigator.platform) ? "⌘ ↵" : "Ctrl ↵";
let models = null;   // those that are served, once they are known
let mode = "complete";
let running = null;  // AbortController of the request that runs
let last = null;     // the last continuation: the text after it, the state before it, how to write another

// ---- settings, presets, theme -------------------------------------------------------------------------------------------

function changed() {
  const values = settings.read();
  $("legend").hidden = values.show === "off";
  for (const sheet of [paper, second]) { sheet.mode = values.show; sheet.draw(); }
  card.hide();
  settings.store("settings", values);
  counter.recount();
}

// Put a preset, a link's text or an entry of the history in place; it can be undone.
function apply(state) {
  const [text, output] = [state.text, state.output].map((part) => (typeof part === "string" ? part : ""));
  if (Array.isArray(state.messages)) {
    chat.restore(state.messages);
    $("system").value = String(state.system ?? "");
    settings.write(state);
  } else {
    paper.keep(settings.read());
    settings.write(state);
    paper.restore({ text: text + output, written: output ? [[text.length, text.length + output.length]] : [] });
  }
  problem(null);
  setMode(Array.isArray(state.messages) ? "chat" : "complete");
  changed();
}

function choosePreset(value) {
  const state = presets.chosen(value);
  if (!state) return;
  $("presets").value = value;
  apply(state);
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  settings.store("theme", theme);
}

function setMode(next) {
  if (running) return;
  mode = next === "chat" && currentModel()?.chat ? "chat" : "complete";
  $("complete").hidden = mode !== "complete";
  $("chat").hidden = mode !== "chat";
  for (const name of ["complete", "chat"]) $(`mode-${name}`).setAttribute("aria-pressed", String(mode === name));
  $("redo").hidden = mode === "chat";
  $("new").hidden = mode !== "chat";
  $("submit").replaceChildren(...(mode === "chat" ? ["Send ", dialogs.element("kbd", { textContent: "↵" })] : ["Submit ", dialogs.element("kbd", { textContent: CONTROL_ENTER })]));
  document.body.classList.toggle("chatting", mode === "chat");  // settings that only completions have are not shown
  card.hide();
  touched();
}

// The text is another, or the model: what depends on it.
function touched() {
  const chatting = mode === "chat", busy = Boolean(running);
  $("begin").hidden = busy || paper.text !== "" || !currentModel();
  $("undo").disabled = busy || !(chatting ? chat.messages.length : paper.canUndo);
  $("redo").disabled = busy || !paper.canRedo;
  $("again").disabled = busy || !(chatting ? chat.messages.length : paper.written.length);
  $("new").disabled = busy || !chat.messages.length;
  counter.recount();
  saveLater();
}

function currentModel() { return models?.find((model) => model.id === $("model").value); }

// The model that continues the same text next to the chosen one.
function rival() { return models?.find((model) => model.id === $("rival").value); }

// ---- writing ------------------------------------------------------------------------------------------------------------

function problem(error) {
  $("problem").hidden = !error;
  $("problem").textContent = error ? error.message : "";
  if (error?.status === 401) askKey();
}

async function askKey() {
  const key = await dialogs.ask("This server asks for a key", "The key it was started with (--api-key). It stays in this tab.", true);
  if (key) {
    api.setKey(key);
    await start();
  }
}

function busy(on) {
  $("submit").hidden = on;
  $("stop").hidden = !on;
  $("text").readOnly = on;
  $("mode-complete").disabled = $("model").disabled = $("rival").disabled = on;
  $("mode-chat").disabled = on || !currentModel()?.chat;
  $("work").setAttribute("aria-busy", String(on));
  touched();
}

async function run(work) {
  if (running) return;
  problem(null);
  card.hide();
  running = new AbortController();
  busy(true);
  $("status").textContent = "waiting …";
  $("count").textContent = "";  // counted anew at the end
  const began = performance.now();
  const made = { tokens: 0, reason: null };
  let summary = "", failure = null;
  try {
    await work(running.signal, made);
    const seconds = (performance.now() - began) / 1000;
    const why = { length: made.full ? "the context is full" : "maximum length" }[made.reason] ?? made.reason;
    summary = `${count(made.tokens)} in ${seconds < 0.1 ? `${Math.round(1000 * seconds)} ms` : `${seconds.toFixed(1)} s`}` + (why ? ` · ${why}` : "");
  } catch (error) {
    if (error.name === "AbortError") summary = `stopped after ${count(made.tokens)}`;
    else failure = error;
  } finally {
    running = null;
    paper.draw();
    busy(false);
    $("status").textContent = summary;  // after `busy`, or it would not be read aloud
    problem(failure);
  }
}

const progress = (made) => { $("status").textContent = `${count(made.tokens)} …`; };
const count = (tokens) => `${tokens.toLocaleString()} ${tokens === 1 ? "token" : "tokens"}`;

function complete() {
  if (running) return null;
  const values = settings.read(), before = paper.state();
  paper.keep();
  return run(async (signal, made) => {
    const inject = settings.unescaped(values.start);
    if (inject) paper.append(inject, false);
    const prompt = paper.text, other = rival(), work = [writing.continueText(paper, currentModel(), values, signal, made, progress)];
    if (other) {
      second.restore({ text: prompt });
      $("first-name").textContent = currentModel().id;
      $("second-name").textContent = other.id;
      work.push(writing.continueText(second, other, values, signal, { tokens: 0 }));
    }
    const failed = (await Promise.allSettled(work)).find((end) => end.reason);
    remember({ ...values, text: prompt, output: paper.text.slice(prompt.length) });
    if (failed) throw failed.reason;
    const restart = settings.unescaped(values.restart);
    if (restart) paper.append(restart, false);
  }).finally(() => {
    last = { after: paper.text, before, write: complete };
    $("text").focus();
    $("text").setSelectionRange(paper.text.length, paper.text.length);
  });
}

// Send a message, or with none have the last answer written anew. Where nothing is answered, all is as before.
function talk(content) {
  if (running) return null;
  const values = settings.read(), before = [...chat.messages];
  if (content) chat.say(content);
  else chat.takeBack(false);
  if (!chat.messages.length) return null;
  return run(async (signal, made) => {
    let failed = true;
    try {
      await writing.answer(chat, currentModel(), values, signal, made);
      failed = false;
    } finally {
      if (!made.tokens && failed) { chat.restore(before); $("say").value = content ?? $("say").value; } else if (!made.tokens) chat.takeBack(false);
    }
  }).finally(() => $("say").focus());
}

function newChat() {
  if (running || !chat.messages.length) return;
  remember({ ...settings.read(), text: chat.messages.map(({ content }) => content).join("\n"), messages: chat.messages, system: $("system").value });
  chat.restore([]);
  problem(null);
  $("status").textContent = "";
  touched();
  $("say").focus();
}

function submit() {
  if (!currentModel()) { if (models) loader.choose(); return null; }
  if (mode === "complete") return complete();
  const content = $("say").value.trim();
  if (!content || running) return null;
  $("say").value = "";
  return talk(content);
}

function undo() {
  if (mode !== "chat") { step("undo"); return; }
  if (running) return;
  problem(null);
  $("status").textContent = "";
  $("say").value = chat.takeBack(true) ?? $("say").value;
  touched();
}

function step(direction) {
  if (running) return;
  card.hide();
  problem(null);
  $("status").textContent = "";
  const then = paper[direction](settings.read());
  if (then) { settings.write(then); changed(); }
  $("presets").value = "";
  touched();
}

function again() {
  if (running) return;
  if (mode === "chat") { talk(null); return; }
  if (last?.after !== paper.text) { complete(); return; }  // the text was changed since
  paper.keep();
  paper.restore(last.before);
  last.write();
}

// Take another token than the model did, and continue from there.
function branch(index, text) {
  const token = paper.tokens[index];
  card.hide();
  paper.keep();
  const state = paper.state();
  paper.restore({
    text: state.text.slice(0, token.start), tokens: state.tokens.slice(0, index),
    written: state.written.map(([a, b]) => [a, Math.min(b, token.start)]).filter(([a, b]) => a < b),
  });
  const place = token.start;
  paper.append(text, true);
  const logprob = token.top.find(([word]) => word === text)[1];
  paper.tokens.push({ start: place, end: paper.text.length, text, logprob, top: token.top });
  paper.draw();
  goOn();
}

// Continue without injections.
function goOn() {
  const before = paper.state();
  run((signal, made) => writing.continueText(paper, currentModel(), settings.read(), signal, made, progress)).finally(() => {
    last = { after: paper.text, before, write: () => { paper.keep(); goOn(); } };
    $("text").focus();
  });
}

// ---- history, and what outlives a reload ------------------------------------------------------------------------------------------

function remember(entry) {
  const entries = [{ ...entry, time: Date.now() }, ...settings.load("history", [])].slice(0, 50);
  while (entries.length && !settings.store("history", entries)) entries.pop();  // the oldest give way when the browser's space is used up
}

// Text, chat and models outlive a reload of the page.
let saving = 0;
function saveLater() {
  clearTimeout(saving);
  saving = setTimeout(save, 400);
}
function save() {
  if (!models) return;  // nothing is known yet of what was there
  const now = { mode, model: $("model").value || kept.model, rival: $("rival").value, paper: paper.state(), messages: chat.messages, system: $("system").value };
  if (!settings.store("session", now)) settings.store("session", { ...now, paper: { text: paper.text } });
}

// ---- buttons and keys -------------------------------------------------------------------------------------------------------

const current = () => ({ ...settings.read(), text: paper.text });
$("submit").addEventListener("click", submit);
$("stop").addEventListener("click", () => running?.abort());
$("undo").addEventListener("click", undo);
$("redo").addEventListener("click", () => step("redo"));
$("new").addEventListener("click", newChat);
$("again").addEventListener("click", again);
$("text").addEventListener("input", () => { card.hide(); problem(null); touched(); });
$("mode-complete").addEventListener("click", () => setMode("complete"));
$("mode-chat").addEventListener("click", () => setMode("chat"));
$("theme").addEventListener("click", () => setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));
$("share").addEventListener("click", () => dialogs.showLink(settings.toLink(current())));
$("history").addEventListener("click", () => dialogs.showHistory(settings.load("history", []), (entry) => apply(entry), () => settings.store("history", [])));
$("code").addEventListener("click", () => {
  const values = settings.read();
  if (mode === "chat") {
    const messages = chat.body();
    dialogs.showCode("/v1/chat/completions", { model: $("model").value, messages: messages.length ? messages : [{ role: "user", content: "Hello" }], ...settings.parameters(values, true) });
  } else {
    dialogs.showCode("/v1/completions", { model: $("model").value, prompt: paper.text + settings.unescaped(values.start), ...settings.parameters(values, false) });
  }
});
$("save").addEventListener("click", async () => {
  const name = await dialogs.ask("Save as a preset", "Text and settings, kept in this browser.");
  if (name && !presets.save(name, current())) problem(new Error("Not saved: this browser has no space left for this page. Clear the history."));
});
$("presets").addEventListener("change", () => choosePreset($("presets").value));
$("model").addEventListener("change", () => { forgetScores(); takeModel(); });
$("rival").addEventListener("change", showRival);
$("system").addEventListener("input", touched);
addEventListener("pagehide", save);
function showRival() {
  const on = Boolean(rival());
  $("complete").classList.toggle("comparing", on);
  for (const id of ["first-name", "second-name", "second"]) $(id).hidden = !on;
  $("first-name").textContent = $("model").value;
  $("second-name").textContent = $("rival").value;
  second.restore({ text: on ? second.text : "" });
  saveLater();
}
function forgetScores() { paper.restore({ ...paper.state(), tokens: [], scored: 0 }); }  // they were the other model's
function takeModel() {
  const model = currentModel();
  if (!model) { $("about").textContent = ""; busy(false); return; }
  $("about").textContent = `context ${model.context_length.toLocaleString()} · vocabulary ${model.vocabulary.toLocaleString()}${model.chat ? " · chats" : ""}`;
  $("mode-chat").title = model.chat ? "" : "This model has no chat template; it continues text";
  settings.limitLength(model.context_length);
  problem(null);
  busy(false);
  setMode(mode);
}
$("say").addEventListener("keydown", (event) => {
  if (event.isComposing || event.keyCode === 229) return;  // the key is an input method's; Safari says only 229
  if (event.key === "Enter" && !event.shiftKey && !event.ctrlKey) { event.preventDefault(); submit(); }
});
document.addEventListener("keydown", (event) => {
  const control = event.ctrlKey || event.metaKey;
  if ($("dialog").open) return;
  if (control && event.key === "Enter") { event.preventDefault(); if (event.shiftKey) again(); else submit(); }
  else if (event.key === "Escape" && running) { event.preventDefault(); running.abort(); }
  else if (event.key === "Escape") { card.hide(); settings.show(false); }
  else if (event.altKey && event.key === "ArrowDown" && event.target === $("text")) {
    event.preventDefault();
    card.enter();
  } else if (control && event.target === $("text") && /^[zy]$/i.test(event.key)) {
    event.preventDefault();
    step(event.shiftKey || event.key.toLowerCase() === "y" ? "redo" : "undo");
  }
});

async function start() {
  let list;
  try {
    list = await api.models();
  } catch (error) { problem(error); return; }
  problem(null);
  loader.show(list);
  take(list, kept.model);
}

// The models that the server lists now; of them the wanted one is chosen, else the one that was, else the first.
function take({ data }, wanted) {
  const before = [wanted, $("model").value], compared = models ? $("rival").value : kept.rival;
  models = data;
  const names = models.map((model) => model.id), option = (id) => dialogs.element("option", { value: id, textContent: id });
  $("model").replaceChildren(...(names.length ? names.map(option) : [dialogs.element("option", { value: "", textContent: "None is loaded" })]));
  $("rival").replaceChildren(dialogs.element("option", { value: "", textContent: "No other model" }), ...names.map(option));
  $("rival").hidden = $("rival").labels[0].hidden = models.length < 2;
  $("model").value = before.find((name) => names.includes(name)) ?? names[0] ?? "";
  if (names.includes(compared) && models.length > 1) $("rival").value = compared;
  if (before[1] && before[1] !== $("model").value) forgetScores();
  showRival();
  takeModel();
}

setTheme(settings.load("theme", matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"));
LABELS.forEach((label, i) => $("legend").append(dialogs.element("li", { className: `p${i}`, textContent: label })));
$("begin").lastElementChild.append(...presets.buttons((value) => { choosePreset(value); $("text").focus(); }));
settings.buildSliders(changed);
settings.write(settings.load("settings", {}));
presets.fill();
const kept = settings.load("session", {}), linked = settings.fromLink();
try {
  paper.restore(kept.paper ?? { text: "" });
  chat.restore(kept.messages ?? []);
  $("system").value = kept.system ?? "";
  if (kept.mode === "chat") mode = "chat";
} catch { /* another version's */ }
changed();
if (linked) apply(linked);
await start();
$("text").focus();
