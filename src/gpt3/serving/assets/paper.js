// The text and what lies under it: what the model wrote, each token on the colour of its probability.

export const LABELS = ["< 5%", "< 25%", "< 50%", "< 80%", "≥ 80%"];
const BOUNDS = [0.05, 0.25, 0.5, 0.8];

export function shade(logprob) {
  const p = Math.exp(logprob);
  return BOUNDS.filter((bound) => p >= bound).length;
}

// A token as a person can read it.
export function visible(text) {
  return text.startsWith("bytes:") ? text.slice(6) : text.replaceAll("\n", "↵").replaceAll("\t", "→").replace(/^ | $/g, "␣") || "∅";
}

export class Paper {
  constructor(area, shades, paper) {
    Object.assign(this, { area, shades, paper, tokens: [], written: [], mode: "off", past: [], future: [] });
    this.shown = { text: "", tokens: [], written: [] };
    area.addEventListener("scroll", () => { shades.scrollTop = area.scrollTop; });
    area.addEventListener("input", () => this.edited());
  }

  get text() { return this.area.value; }

  state() { return { text: this.text, tokens: [...this.tokens], written: [...this.written] }; }

  restore(state) {
    this.area.value = state.text;
    this.tokens = [...state.tokens];
    this.written = [...state.written];
    this.shown = this.state();
    this.draw();
  }

  // Remember what is there, to be undone to.
  keep() {
    if (this.past.at(-1)?.text === this.text) this.past[this.past.length - 1] = this.state();
    else this.past.push(this.state());
    if (this.past.length > 200) this.past.shift();
    this.future = [];
  }

  get canUndo() { return this.past.some((state) => state.text !== this.text); }

  get canRedo() { return this.future.length > 0; }

  undo() {
    if (!this.canUndo) return;
    while (this.past.at(-1).text === this.text) this.past.pop();
    this.future.push(this.state());
    this.restore(this.past.pop());
  }

  redo() {
    if (!this.canRedo) return;
    this.past.push(this.state());
    this.restore(this.future.pop());
  }

  // A person changed the text: what stands after the first change has no known probabilities any more.
  edited() {
    const before = this.shown.text, now = this.text;
    let same = 0;
    while (same < before.length && before[same] === now[same]) same += 1;
    if (Date.now() - (this.typed ?? 0) > 800 && this.past.at(-1)?.text !== before) {
      this.past.push(this.shown);
      this.future = [];
    }
    this.typed = Date.now();
    this.tokens = this.tokens.filter((token) => token.end <= same);
    this.written = this.written.map(([a, b]) => [a, Math.min(b, same)]).filter(([a, b]) => a < b);
    this.shown = this.state();
    this.draw();
  }

  // Text that the model or an injection adds at the end.
  append(piece, byModel) {
    const start = this.text.length;
    this.area.value += piece;
    const end = this.text.length;
    if (byModel && piece) {
      const last = this.written.at(-1);
      if (last && last[1] === start) last[1] = end;
      else this.written.push([start, end]);
    }
    this.shown = this.state();
    this.later();
  }

  // Draw when the screen is next drawn, however many tokens come until then.
  later() {
    if (this.due) return;
    this.due = requestAnimationFrame(() => { this.draw(); this.follow(); });
  }

  // Keep the end of the text in sight, unless a person has scrolled up.
  follow() {
    const last = this.shades.lastElementChild;
    if (!last) return;
    const below = last.getBoundingClientRect().bottom - this.area.getBoundingClientRect().bottom + 60;
    if (below > 0 && below < 200) this.area.scrollTop += below;
    this.shades.scrollTop = this.area.scrollTop;
  }

  // Tokens of a completion that began at `base`; `offsets` count characters from `from` on.
  addTokens(logprobs, base, from, characters) {
    const starts = logprobs.text_offset.map((offset) => base + characters.slice(0, Math.max(0, offset - from)).join("").length);
    const before = this.tokens.at(-1);
    if (before && before.start >= base) before.end = this.text.length;  // it may have been shown in two pieces
    logprobs.tokens.forEach((text, i) => {
      if (starts[i] >= this.text.length) return;  // end-of-text, of which nothing is shown
      const same = this.tokens.at(-1);
      const top = Object.entries(logprobs.top_logprobs[i]).sort((a, b) => b[1] - a[1]);
      const token = { start: starts[i], end: this.text.length, text, logprob: logprobs.token_logprobs[i], top };
      if (same && same.start === token.start) {  // parts of one character are one token here
        same.logprob += token.logprob;
      } else {
        if (same && same.end > token.start) same.end = token.start;
        this.tokens.push(token);
      }
    });
    this.shown = this.state();
    this.later();
  }

  // Lay the marks of tokens, or of what the model wrote, under the text.
  draw() {
    if (this.due) cancelAnimationFrame(this.due);
    this.due = 0;
    const text = this.text, parts = [];
    this.paper.classList.toggle("shaded", this.mode !== "off");
    let at = 0;
    const plain = (end) => { if (end > at) parts.push(document.createTextNode(text.slice(at, end))); at = Math.max(at, end); };
    const mark = (start, end, name, index) => {
      plain(start);
      const span = document.createElement("span");
      span.className = name;
      if (index === undefined) span.textContent = text.slice(start, end);
      else {  // the space before a word has no colour: at the end of a line it would hang over as a strip of its own
        const space = /^ (?=\S)/.test(text.slice(start, end)) ? 1 : 0, word = document.createElement("span");
        word.textContent = text.slice(start + space, end);
        span.append(text.slice(start, start + space), word);
        span.dataset.index = index;
      }
      parts.push(span);
      at = end;
    };
    if (this.mode === "off") {
      for (const [start, end] of this.written) mark(start, end, "written");
    } else {
      this.tokens.forEach((token, i) => mark(token.start, token.end, `t ${this.colour(token)}`, i));
    }
    plain(text.length);
    const tail = document.createElement("span");  // a last line end needs something after it to take up a line
    tail.className = "tail";
    tail.textContent = "\u200b";
    this.shades.replaceChildren(...parts, tail);
    this.shades.scrollTop = this.area.scrollTop;
  }

  colour(token) {
    const level = shade(token.logprob);
    if (this.mode === "most" && level < 3) return "";
    if (this.mode === "least" && level > 1) return "";
    return `p${level}`;
  }

  // The token at a place on the screen, or before a place in the text.
  tokenAt(x, y) {
    const span = document.elementsFromPoint(x, y).find((element) => element.matches?.("#shades .t"));
    return span ? Number(span.dataset.index) : -1;
  }

  tokenBefore(place) { return this.tokens.findIndex((token) => token.start < place && place <= token.end); }

  spanOf(index) { return this.shades.querySelector(`[data-index="${index}"]`); }

  mark(index) {
    for (const span of this.shades.querySelectorAll(".now")) span.classList.remove("now");
    if (index >= 0) this.spanOf(index)?.classList.add("now");
  }
}
