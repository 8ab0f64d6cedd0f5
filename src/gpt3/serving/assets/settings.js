// Parameters, and what is kept in this browser or sent along in a link.

import { OPTIONS } from "./options.js";  // the sampler's fields, as in the API's OpenAPI document

// What this page shows of an option otherwise than the API has it.
const SHOWN = { temperature: { value: 0.7 }, top_k: { most: 200 }, repetition_penalty: { least: 0.5, most: 2 } };
const MOST = 100;  // of a slider without an upper bound
const labelled = (name) => (name[0].toUpperCase() + name.slice(1)).replaceAll(/_(\w)(?=_|$)/g, (_, letter) => ` ${letter.toUpperCase()}`).replaceAll("_", " ");
const slider = ([name, field]) => {
  const kind = field.anyOf[0], step = kind.type === "integer" ? 1 : 0.01;
  const { least, most, value } = { least: kind.minimum ?? kind.exclusiveMinimum + step, most: kind.maximum ?? MOST, value: field["x-neutral"], ...SHOWN[name] };
  return [name, labelled(name), least, most, step, value, field.description];
};
const COMMON = ["temperature", "max_tokens", "top_p", "frequency_penalty", "presence_penalty"];  // the others are behind a fold

export const SLIDERS = [
  // name, label, least, most, step, default, explanation
  ["max_tokens", "Maximum length", 1, 2048, 1, 64, "Tokens to generate at most."],
  ...Object.entries(OPTIONS).map(slider),
  ["best_of", "Best of", 1, 20, 1, 1, "Generate this many, show the likeliest; does not stream."],
].sort((one, other) => (COMMON.indexOf(one[0]) + 1 || 9) - (COMMON.indexOf(other[0]) + 1 || 9));

const NEUTRAL = Object.fromEntries(Object.entries(OPTIONS).map(([name, field]) => [name, field["x-neutral"]]));
const TEXTS = ["stops", "start", "restart", "seed"];
const SHOWS = ["off", "most", "least", "full"];
const $ = (id) => document.getElementById(id);

export const unescaped = (text) => text.replace(/\\([nt\\])/g, (_, c) => ({ n: "\n", t: "\t", "\\": "\\" })[c]);

export function buildSliders(changed) {
  for (const [name, label, least, most, step, value, why] of SLIDERS) {
    const box = document.createElement("div"), head = document.createElement("div");
    box.className = "slider";
    const title = document.createElement("label"), number = document.createElement("input"), range = document.createElement("input");
    Object.assign(title, { htmlFor: name, textContent: label, title: why });
    Object.assign(number, { id: name, type: "number", min: least, max: most, step, value, title: why });
    Object.assign(range, { type: "range", min: least, max: most, step, value, tabIndex: -1, title: why });
    range.setAttribute("aria-label", `${label}, slider`);
    range.addEventListener("input", () => { number.value = range.value; paint(range, name); changed(); });
    number.addEventListener("input", () => { range.value = number.value; paint(range, name); changed(); });
    number.addEventListener("change", () => { set(name, number.value); changed(); });
    head.append(title, number);
    box.append(head, range);
    $(COMMON.includes(name) ? "sliders" : "rare-sliders").append(box);
  }
  for (const name of TEXTS) $(name).addEventListener("input", changed);
  $("show").addEventListener("change", changed);
}

// Fill the track from the left end, or from an inner neutral value, to where the slider is.
function paint(range, name) {
  const [least, most] = [Number(range.min), Number(range.max)];
  const share = (value) => (100 * (value - least)) / (most - least);
  const inner = least < NEUTRAL[name] && NEUTRAL[name] < most && name !== "temperature";
  const ends = [share(inner ? NEUTRAL[name] : least), share(Number(range.value))].sort((a, b) => a - b);
  range.style.setProperty("--low", `${ends[0]}%`);
  range.style.setProperty("--high", `${ends[1]}%`);
}

// Put a value into its fields, brought within its range.
function set(name, value) {
  const slider = SLIDERS.find((entry) => entry[0] === name);
  const number = Number(value);
  const most = Number($(name).max);
  const fine = Number.isFinite(number) && value !== "" ? Math.min(most, Math.max(slider[2], number)) : slider[5];
  $(name).value = slider[4] === 1 ? Math.round(fine) : fine;
  const range = $(name).closest(".slider").querySelector("[type=range]");
  range.value = $(name).value;
  paint(range, name);
}

export function limitLength(context) {
  for (const input of $("max_tokens").closest(".slider").querySelectorAll("input")) input.max = context - 1;
  set("max_tokens", $("max_tokens").value);
}

export function read() {
  const values = Object.fromEntries(SLIDERS.map(([name, , , , , value]) => [name, $(name).value === "" ? value : Number($(name).value)]));
  for (const name of TEXTS) values[name] = $(name).value;
  values.show = $("show").value;
  return values;
}

// Values may come from a link, so nothing is believed about them.
export function write(values) {
  for (const [name, , , , , value] of SLIDERS) set(name, values[name] ?? value);
  if (SLIDERS.some(([name, , , , , value]) => !COMMON.includes(name) && Number($(name).value) !== value)) $("rarer").open = true;
  for (const name of TEXTS) $(name).value = typeof values[name] === "string" ? values[name].slice(0, 2000) : "";
  $("show").value = SHOWS.includes(values.show) ? values.show : "off";
}

// The fields of a request; those at their defaults are left out.
export function parameters(values, chat) {
  const body = { max_tokens: values.max_tokens, temperature: values.temperature };
  for (const [name, none] of Object.entries(NEUTRAL)) if (values[name] !== none) body[name] = values[name];
  if (!chat && values.best_of > 1) body.best_of = values.best_of;
  const stops = values.stops.split("\n").filter(Boolean).map(unescaped);
  if (stops.length) body.stop = stops;
  if (/^\d{1,15}$/.test(values.seed.trim())) body.seed = Number(values.seed.trim());
  return body;
}

// Limit a request's length to the tokens that are left; without any, the server tells.
export function fit(body, left) {
  if (left < 1) return;
  body.max_tokens = Math.min(body.max_tokens, left);
  if (body.min_new_tokens) body.min_new_tokens = Math.min(body.min_new_tokens, left);
}

// On a narrow screen the settings lie over the text.
const narrow = matchMedia("(max-width: 820px)");
export function show(open) {
  $("settings").classList.toggle("open", open);
  $("toggle-settings").setAttribute("aria-expanded", String(open));
  $("work").inert = open && narrow.matches;
}
$("toggle-settings").addEventListener("click", () => show(!$("settings").classList.contains("open")));
narrow.addEventListener("change", () => show(false));

export function load(name, otherwise) {
  try { return JSON.parse(localStorage.getItem(`gpt3.${name}`)) ?? otherwise; } catch { return otherwise; }
}

// Whether there was space for it.
export function store(name, value) {
  try { localStorage.setItem(`gpt3.${name}`, JSON.stringify(value)); return true; } catch { return false; }
}

export function toLink(state) {
  const bytes = new TextEncoder().encode(JSON.stringify(state));
  const text = btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
  return `${location.origin}/#${text.replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "")}`;
}

// What the link that was opened brings; the address forgets it.
export function fromLink() {
  const { hash } = location;
  if (hash.length < 2) return null;
  history.replaceState(null, "", "/");
  try {
    const text = atob(hash.slice(1).replaceAll("-", "+").replaceAll("_", "/"));
    const state = JSON.parse(new TextDecoder().decode(Uint8Array.from(text, (c) => c.charCodeAt(0))));
    return state && typeof state === "object" && typeof state.text === "string" ? state : null;
  } catch { return null; }
}
