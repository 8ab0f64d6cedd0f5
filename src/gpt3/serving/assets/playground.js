// The page: what its buttons and keys do.

import * as api from "./api.js";
import { Chat } from "./chat.js";
import * as dialogs from "./dialogs.js";
import { LABELS, Paper, visible } from "./paper.js";
import * as settings from "./settings.js";

const $ = (id) => document.getElementById(id);
const paper = new Paper($("text"), $("shades"));
const chat = new Chat();
const CONTROL_ENTER = /Mac|iP/.test(navigator.platform) ? "⌘ ↵" : "Ctrl ↵";
let models = [];
let mode = "complete";
let running = null;  // AbortController of the request that runs
let shown = -1;      // token that is described
let pinned = false;  // it stays when the pointer leaves
let last = null;     // the last continuation: the text after it, the state before it, how to write another

// ---- settings, presets, theme -------------------------------------------------------------------------------------------

function changed() {
  const values = settings.read();
  paper.mode = values.show;
  $("legend").hidden = values.show === "off";
  paper.draw();
  hideToken();
  settings.store("settings", values);
}

function fillPresets(select) {
  const saved = settings.load("presets", []);
  const group = (label, entries, kind) => {
    const box = dialogs.element("optgroup", { label });
    entries.forEach(([name], i) => box.append(dialogs.element("option", { value: `${kind}${i}`, textContent: name })));
    return box;
  };
  $("presets").replaceChildren(dialogs.element("option", { value: "", textContent: "Presets" }), group("From the paper", settings.PRESETS, "p"),
    ...(saved.length ? [group("Saved here", saved, "s")] : []));
  $("presets").value = select ?? "";
}

function apply(state) {
  settings.write(state);
  paper.keep();
  paper.restore({ text: String(state.text ?? ""), tokens: [], written: [] });
  problem(null);
  setMode("complete");
  changed();
}

function choosePreset(value) {
  const [kind, place] = [value[0], Number(value.slice(1))];
  const chosen = (kind === "s" ? settings.load("presets", []) : settings.PRESETS)[place];
  if (!kind || !chosen) return;
  $("presets").value = value;
  apply(chosen[1]);
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
  $("submit").replaceChildren(...(mode === "chat" ? ["Send ", dialogs.element("kbd", { textContent: "↵" })] : ["Submit ", dialogs.element("kbd", { textContent: CONTROL_ENTER })]));
  document.body.classList.toggle("chatting", mode === "chat");  // settings that only completions have are not shown
  hideToken();
  touched();
}

// The text is another, or the model: what depends on it.
function touched() {
  const chatting = mode === "chat", busy = Boolean(running);
  $("begin").hidden = busy || paper.text !== "";
  $("undo").disabled = busy || !(chatting ? chat.messages.length : paper.canUndo);
  $("redo").disabled = busy || !paper.canRedo;
  $("again").disabled = busy || !(chatting ? chat.messages.length : paper.written.length);
  recount();
}

function currentModel() { return models.find((model) => model.id === $("model").value); }

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

function requestBody(values, prompt) {
  return { model: $("model").value, prompt, ...settings.parameters(values, false), logprobs: 5 };
}

function busy(on) {
  $("submit").hidden = on;
  $("stop").hidden = !on;
  $("text").readOnly = on;
  $("mode-complete").disabled = $("model").disabled = on;
  $("mode-chat").disabled = on || !currentModel()?.chat;
  $("work").setAttribute("aria-busy", String(on));
  touched();
}

async function run(work) {
  if (running) return;
  problem(null);
  hideToken();
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
    const why = { length: "maximum length" }[made.reason] ?? made.reason;
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

const count = (tokens) => `${tokens.toLocaleString()} ${tokens === 1 ? "token" : "tokens"}`;

function complete() {
  if (running) return null;
  const values = settings.read(), before = paper.state();
  paper.keep();
  return run(async (signal, made) => {
    const inject = settings.unescaped(values.start);
    if (inject) paper.append(inject, false);
    remember(values);
    await continueFrom(values, signal, made);
    const restart = settings.unescaped(values.restart);
    if (restart) paper.append(restart, false);
  }).finally(() => {
    last = { after: paper.text, before, write: complete };
    $("text").focus();
    $("text").setSelectionRange(paper.text.length, paper.text.length);
  });
}

// Stream a continuation of all that is there.
async function continueFrom(values, signal, made) {
  const prompt = paper.text, base = prompt.length, from = Array.from(prompt).length;
  const body = requestBody(values, prompt);
  const characters = [];
  const take = (choice) => {
    characters.push(...choice.text);
    paper.append(choice.text, true);
    if (choice.logprobs) paper.addTokens(choice.logprobs, base, from, characters);
    made.tokens += choice.logprobs?.tokens.length ?? 0;
    made.reason = choice.finish_reason ?? made.reason;
    $("status").textContent = `${count(made.tokens)} …`;
  };
  for await (const chunk of api.stream("/v1/completions", body, signal)) take(chunk.choices[0]);
}

function talk(content) {
  const values = settings.read();
  if (content) chat.say(content);
  if (!chat.messages.length) return null;
  return run(async (signal, made) => {
    const body = { model: $("model").value, messages: chat.body(), ...settings.parameters(values, true) };
    chat.begin();
    let said = false;
    try {
      for await (const chunk of api.stream("/v1/chat/completions", body, signal)) {
        const { delta, finish_reason: reason } = chunk.choices[0];
        if (delta.content) { chat.append(delta.content); made.tokens += 1; said = true; }
        made.reason = reason ?? made.reason;
      }
    } finally { if (!said) chat.takeBack(false); }
  }).finally(() => $("say").focus());
}

function submit() {
  if (mode === "complete") return complete();
  const content = $("say").value.trim();
  if (!content) return null;
  $("say").value = "";
  return talk(content);
}

function undo() {
  if (running) return;
  hideToken();
  problem(null);
  $("status").textContent = "";
  if (mode === "chat") { const said = chat.takeBack(true); if (said) $("say").value = said; }
  else paper.undo();
  touched();
}

function redo() {
  if (running) return;
  hideToken();
  problem(null);
  paper.redo();
  touched();
}

function again() {
  if (running) return;
  if (mode === "chat") { chat.takeBack(false); talk(null); return; }
  if (last?.after !== paper.text) { complete(); return; }  // the text was changed since
  paper.keep();
  paper.restore(last.before);
  last.write();
}

// Take another token than the model did, and continue from there.
function branch(index, text) {
  const token = paper.tokens[index];
  hideToken();
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
  run((signal, made) => continueFrom(settings.read(), signal, made)).finally(() => {
    last = { after: paper.text, before, write: () => { paper.keep(); goOn(); } };
    $("text").focus();
  });
}

// ---- the token under the pointer or before the caret ------------------------------------------------------------------------

function describe(index, pin) {
  const token = paper.tokens[index];
  if (!token || paper.mode === "off" || running) return;
  shown = index;
  pinned = pin;
  paper.mark(index);
  const per = (logprob) => `${(100 * Math.exp(logprob)).toFixed(2)}%`;
  const covered = token.top.slice(0, 5).reduce((sum, [, logprob]) => sum + Math.exp(logprob), 0);
  const items = token.top.map(([word, logprob]) => {
    const bar = dialogs.element("i"), fixed = /^bytes:|^<\|.*\|>$/.test(word);  // parts of characters and control tokens are no text
    bar.style.width = `${100 * Math.exp(logprob)}%`;
    const button = dialogs.element("button", { disabled: fixed, title: fixed ? "" : "Continue from here with this token" },
      dialogs.element("span", { className: "word", textContent: visible(word) }), dialogs.element("span", { className: "share" }, bar),
      dialogs.element("span", { className: "per", textContent: per(logprob) }));
    button.addEventListener("click", () => branch(index, word));
    return dialogs.element("li", { className: word === token.text ? "said" : "" }, button);
  });
  $("token").replaceChildren(dialogs.element("h2", { textContent: visible(token.text) }),
    dialogs.element("p", { textContent: `${per(token.logprob)} · logprob ${token.logprob.toFixed(3).replace("-", "−")}` }), dialogs.element("ol", {}, ...items),
    dialogs.element("p", { textContent: `The top five cover ${(100 * covered).toFixed(1)}%. Choose one to branch from here.` }));
  if (pin) $("announcement").textContent = `${visible(token.text)}, ${per(token.logprob)}`;
  $("token").hidden = false;
  const box = paper.boxOf(index), card = $("token").getBoundingClientRect();
  const below = box.bottom + 8 + card.height < innerHeight;
  $("token").style.left = `${Math.max(8, Math.min(box.left, innerWidth - card.width - 12))}px`;
  $("token").style.top = `${Math.max(8, below ? box.bottom + 6 : box.top - card.height - 6)}px`;
}

function hideToken() {
  $("token").hidden = true;
  shown = -1;
  pinned = false;
  paper.mark(-1);
}

let leaving = 0;
$("text").addEventListener("mousemove", (event) => {
  if (paper.mode === "off" || event.buttons) return;
  const index = paper.tokenAt(event.clientX, event.clientY);
  clearTimeout(leaving);
  if (index >= 0 && index !== shown) describe(index, false);
  else if (index < 0 && !pinned) leaving = setTimeout(hideToken, 250);
});
$("text").addEventListener("mouseleave", () => { if (!pinned) leaving = setTimeout(hideToken, 250); });
$("token").addEventListener("mouseenter", () => clearTimeout(leaving));
$("token").addEventListener("mouseleave", () => { if (!pinned) leaving = setTimeout(hideToken, 250); });
$("token").addEventListener("keydown", (event) => {
  const buttons = [...$("token").querySelectorAll("button:not(:disabled)")], at = buttons.indexOf(document.activeElement);
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (step) { event.preventDefault(); buttons[(at + step + buttons.length) % buttons.length]?.focus(); }
  if (event.key === "Escape") { hideToken(); $("text").focus(); }
});
function caret() {
  if (paper.mode === "off" || running || document.activeElement !== $("text")) return;
  const index = paper.tokenBefore($("text").selectionEnd);
  if (index >= 0) describe(index, true);
  else hideToken();
}
$("text").addEventListener("keyup", (event) => { if (/^(Arrow|Home|End|Page)/.test(event.key) && !event.altKey) caret(); });
$("text").addEventListener("click", caret);
$("text").addEventListener("scroll", () => { if (!running) hideToken(); });

// ---- history, tokens of the text ------------------------------------------------------------------------------------------

function remember(values) {
  const entries = settings.load("history", []);
  settings.store("history", [{ ...values, time: Date.now(), text: paper.text.slice(0, 20000) }, ...entries].slice(0, 50));
}

let counting = null, timer = 0;
function recount() {
  clearTimeout(timer);
  const model = currentModel();
  if (!model || running || mode === "chat") { $("count").textContent = ""; return; }
  timer = setTimeout(async () => {
    counting?.abort();
    counting = new AbortController();
    const context = model.context_length;
    try {
      const tokens = paper.text ? await api.countTokens(paper.text, model.id, counting.signal) : 0;
      $("count").textContent = `${tokens.toLocaleString()} / ${context.toLocaleString()} tokens`;
      $("count").classList.remove("over");
    } catch (error) {
      if (error.code === "context_length_exceeded") {
        $("count").textContent = `more than ${context.toLocaleString()} tokens`;
        $("count").classList.add("over");
      }
    }
  }, 350);
}

// ---- buttons and keys -------------------------------------------------------------------------------------------------------

const current = () => ({ ...settings.read(), text: paper.text });
$("submit").addEventListener("click", submit);
$("stop").addEventListener("click", () => running?.abort());
$("undo").addEventListener("click", undo);
$("redo").addEventListener("click", redo);
$("again").addEventListener("click", again);
$("text").addEventListener("input", () => { hideToken(); problem(null); touched(); });
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
  if (!name) return;
  const saved = settings.load("presets", []).filter(([other]) => other !== name);
  settings.store("presets", [...saved, [name, current()]]);
  fillPresets(`s${saved.length}`);
});
$("presets").addEventListener("change", () => choosePreset($("presets").value));
$("model").addEventListener("change", takeModel);
function takeModel() {
  const model = currentModel();
  $("about").textContent = `context ${model.context_length.toLocaleString()} · vocabulary ${model.vocabulary.toLocaleString()}${model.chat ? " · chats" : ""}`;
  $("mode-chat").title = model.chat ? "" : "This model has no chat template; it continues text";
  settings.limitLength(model.context_length);
  problem(null);
  busy(false);
  setMode(mode);
}
// On a narrow screen the settings lie over the text.
const narrow = matchMedia("(max-width: 820px)");
function showSettings(open) {
  $("settings").classList.toggle("open", open);
  $("toggle-settings").setAttribute("aria-expanded", String(open));
  $("work").inert = open && narrow.matches;
}
$("toggle-settings").addEventListener("click", () => showSettings(!$("settings").classList.contains("open")));
narrow.addEventListener("change", () => showSettings(false));
$("say").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.ctrlKey && !event.isComposing) { event.preventDefault(); submit(); }
});
document.addEventListener("keydown", (event) => {
  const control = event.ctrlKey || event.metaKey;
  if ($("dialog").open) return;
  if (control && event.key === "Enter") { event.preventDefault(); if (event.shiftKey) again(); else submit(); }
  else if (event.key === "Escape" && running) { event.preventDefault(); running.abort(); }
  else if (event.key === "Escape") { hideToken(); showSettings(false); }
  else if (event.altKey && event.key === "ArrowDown" && event.target === $("text")) {
    event.preventDefault();
    caret();
    $("token").querySelector("button:not(:disabled)")?.focus();
  } else if (control && event.target === $("text") && /^[zy]$/i.test(event.key)) {
    event.preventDefault();
    if (event.shiftKey || event.key.toLowerCase() === "y") redo();
    else undo();
  }
});

async function start() {
  try {
    models = await api.models();
  } catch (error) { problem(error); return; }
  problem(null);
  $("model").replaceChildren(...models.map((model) => dialogs.element("option", { value: model.id, textContent: model.id })));
  takeModel();
}

setTheme(settings.load("theme", matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"));
LABELS.forEach((label, i) => $("legend").append(dialogs.element("li", { className: `p${i}`, textContent: label })));
settings.PRESETS.forEach(([name], i) => {
  const chip = dialogs.element("button", { textContent: name });
  chip.addEventListener("click", () => { choosePreset(`p${i}`); $("text").focus(); });
  $("begin").lastElementChild.append(chip);
});
settings.buildSliders(changed);
settings.write(settings.load("settings", {}));
fillPresets();
changed();
const linked = fromHash();
if (linked) apply(linked);
await start();
$("text").focus();

function fromHash() {
  const state = location.hash.length > 1 ? settings.fromLink(location.hash) : null;
  if (state) history.replaceState(null, "", "/");
  return state;
}
