// Texts with settings to begin with: the paper's tasks, and those saved in this browser.

import { element } from "./dialogs.js";
import { load, store } from "./settings.js";

// Prompts in the forms of the paper (Brown et al. 2020, sections 3.9.1 to 3.9.6 and appendix G).
const PRESETS = [
  ["Question and answer", {
    text: "Q: What is the capital of France?\nA: Paris\n\nQ: How many legs does a spider have?\nA: Eight\n\nQ: Which river flows through Egypt?",
    start: "\\nA:", restart: "\\n\\nQ: ", stops: "\\n", temperature: 0, max_tokens: 32,
  }],
  ["English to French", {
    text: "English: The sea is calm today.\nFrench: La mer est calme aujourd'hui.\n\nEnglish: Where is the station?\nFrench: Où est la gare ?\n\nEnglish: I like to read in the evening.",
    start: "\\nFrench:", restart: "\\n\\nEnglish: ", stops: "\\n", temperature: 0.3, max_tokens: 48,
  }],
  ["Arithmetic", {
    text: "Q: What is 17 plus 25?\nA: 42\n\nQ: What is 60 minus 18?\nA: 42\n\nQ: What is 48 plus 76?",
    start: "\\nA:", restart: "\\n\\nQ: ", stops: "\\n", temperature: 0, max_tokens: 8, show: "full",
  }],
  ["Unscramble a word", {
    text: "Please unscramble the letters into a word, and write that word:\npapel = apple\nrae = ear\nehosu =",
    start: "", restart: "\\n", stops: "\\n", temperature: 0, max_tokens: 8, show: "full",
  }],
  ["Grammar correction", {
    text: "Poor English input: I has two brother.\nGood English output: I have two brothers.\n\nPoor English input: She no went to the market.\nGood English output: She didn't go to the market.\n\nPoor English input: The patient was died.",
    start: "\\nGood English output:", restart: "\\n\\nPoor English input: ", stops: "\\n", temperature: 0, max_tokens: 48,
  }],
  ["A story", { text: "The lighthouse keeper had not spoken to anyone for a year when", temperature: 1, top_p: 0.9, max_tokens: 200 }],
];

const list = document.getElementById("presets");

export function fill(selected = "") {
  const group = (label, entries, kind) => element("optgroup", { label },
    ...entries.map(([name], i) => element("option", { value: `${kind}${i}`, textContent: name })));
  const saved = load("presets", []);
  list.replaceChildren(element("option", { value: "", textContent: "Presets" }), group("From the paper", PRESETS, "p"),
    ...(saved.length ? [group("Saved here", saved, "s")] : []));
  list.value = selected;
}

export function chosen(value) { return value && (value[0] === "s" ? load("presets", []) : PRESETS)[Number(value.slice(1))]?.[1]; }

// Buttons for the paper's tasks.
export function buttons(choose) {
  return PRESETS.map(([name], i) => {
    const button = element("button", { textContent: name });
    button.addEventListener("click", () => choose(`p${i}`));
    return button;
  });
}

// Whether there was space for it.
export function save(name, state) {
  const saved = load("presets", []).filter(([other]) => other !== name);
  const stored = store("presets", [...saved, [name, state]]);
  if (stored) fill(`s${saved.length}`);
  return stored;
}
