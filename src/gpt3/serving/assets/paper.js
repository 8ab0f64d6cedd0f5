// The text and what lies under it: what the model wrote, each token on the color of its probability.

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
  constructor(area, shades) {
    Object.assign(this, { area, shades, tokens: [], written: [], scored: 0, mode: "off", past: [], future: [] });  // `scored`: up to here probabilities are known
    this.copy = document.createTextNode("");
    this.tail = document.createElement("span");  // a last line end needs something after it to take up a line
    Object.assign(this.tail, { className: "tail", textContent: "\u200b" });
    this.marks = document.createElement("div");
    this.range = document.createRange();  // one for all: each that lives is brought up to date with every change of the page
    shades.replaceChildren(this.copy, this.tail, this.marks);
    new ResizeObserver(() => this.draw()).observe(shades);
    this.shown = this.state();
    area.addEventListener("scroll", () => { shades.scrollTop = area.scrollTop; });
    area.addEventListener("input", () => this.edited());
  }

  get text() { return this.area.value; }

  state() { return { text: this.text, tokens: [...this.tokens], written: [...this.written], scored: this.scored }; }

  restore({ text, tokens = [], written = [], scored = 0 }) {
    this.area.value = text;
    Object.assign(this, { tokens: [...tokens], written: [...written], scored });
    this.shown = this.state();
    this.draw();
  }

  // Remember what is there, to be undone to; with the settings, where they are about to change, too.
  keep(settings) {
    if (this.past.length && !this.differs(this.past.at(-1))) this.past.pop();
    this.past.push({ ...this.state(), settings });
    if (this.past.length > 200) this.past.shift();
    this.future = [];
  }

  differs(state) { return state.text !== this.text || Boolean(state.settings); }

  get canUndo() { return this.past.some((state) => this.differs(state)); }

  get canRedo() { return this.future.length > 0; }

  // Both take the settings of now, and return those of then where they were others.
  undo(settings) {
    if (!this.canUndo) return null;
    while (!this.differs(this.past.at(-1))) this.past.pop();
    return this.step(this.past, this.future, settings);
  }

  redo(settings) { return this.canRedo ? this.step(this.future, this.past, settings) : null; }

  step(from, to, settings) {
    const state = from.pop();
    to.push({ ...this.state(), settings: state.settings && settings });
    this.restore(state);
    return state.settings;
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
    this.scored = Math.min(this.scored, this.tokens.at(-1)?.end ?? 0);
    this.shown = this.state();
    this.drawEnd();
  }

  // Text that the model or an injection adds at the end.
  append(piece, byModel) {
    const start = this.text.length;
    this.area.value += piece;
    const end = this.text.length;
    if (byModel && piece) {
      if (this.scored === start) this.scored = end;
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
    this.due = requestAnimationFrame(() => { this.drawEnd(); this.follow(); });
  }

  // Keep the end of the text in sight, unless a person has scrolled up.
  follow() {
    const below = this.tail.getBoundingClientRect().bottom - this.area.getBoundingClientRect().bottom + 60;
    if (below > 0 && below < 200) this.area.scrollTop += below;
    this.shades.scrollTop = this.area.scrollTop;
  }

  // Tokens of a completion that began at `base`; `offsets` count characters from `from` on.
  addTokens(logprobs, base, from, characters) {
    const before = this.tokens.at(-1);
    if (before && before.start >= base) before.end = this.text.length;  // it may have been shown in two pieces
    this.list(logprobs, (offset) => base + characters.slice(0, Math.max(0, offset - from)).join("").length);
    this.later();
  }

  // Tokens of the whole text, as the API echoes it.
  score(logprobs) {
    const places = [0];
    for (const character of this.text) places.push(places.at(-1) + character.length);
    this.tokens = [];
    this.list(logprobs, (offset) => places[offset]);
    this.scored = this.text.length;
    this.shown = this.state();
    this.draw();
  }

  list(logprobs, place) {
    const starts = logprobs.text_offset.map(place);
    logprobs.tokens.forEach((text, i) => {
      if (logprobs.token_logprobs[i] === null || !(starts[i] < this.text.length)) return;  // a text's first token, and its end token
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
  }

  // Lay the marks of tokens from the one with this number on, or of what the model wrote, under the text. They are boxes laid over
  // a copy of the text that is one piece as the text itself is: elements around its parts would round their widths, and now and
  // then a line would end elsewhere than in the text.
  draw(from = 0) {
    if (this.due) cancelAnimationFrame(this.due);
    this.due = 0;
    const text = this.text, range = this.range;
    if (this.copy.data !== text) this.copy.data = text;
    const shaded = this.mode !== "off", origin = this.shades.getBoundingClientRect();
    const [left, top] = [origin.left - this.shades.scrollLeft, origin.top - this.shades.scrollTop];
    const boxes = (start, end, name, index) => {
      const made = document.createElement("div");
      made.className = name;
      Object.assign(made.dataset, { index, start, end });
      range.setStart(this.copy, start + (/^ (?=\S)/.test(text.slice(start, end)) ? 1 : 0));  // without the space before a word
      range.setEnd(this.copy, end);
      const lines = [];
      for (const { left: x, top: y, width, height } of range.getClientRects()) {
        const line = lines.at(-1);
        if (line && line.top === y) line.width = x + width - line.left;
        else lines.push({ left: x, top: y, width, height });
      }
      const wide = lines.filter((line) => line.width > 0);
      for (const rect of wide.length ? wide : lines) {  // a line end alone has no width
        const box = document.createElement("i");
        Object.assign(box.style, { left: `${rect.left - left}px`, top: `${rect.top - top}px`, width: `${rect.width || 5}px`, height: `${rect.height}px` });
        made.append(box);
      }
      return made;
    };
    const kept = shaded && this.drawn === this.mode ? Math.max(0, Math.min(from, this.marks.children.length)) : 0;
    this.drawn = this.mode;
    const made = shaded ? this.tokens.slice(kept).map((token, i) => boxes(token.start, token.end, `t ${this.color(token)}`, kept + i))
      : this.written.map(([start, end], i) => boxes(start, end, "written", i));
    while (this.marks.children.length > kept) this.marks.lastElementChild.remove();
    this.marks.append(...made);
    this.shades.scrollTop = this.area.scrollTop;
  }

  // The same where the text before the last tokens is as it was: its lines are, too.
  drawEnd() { this.draw(this.tokens.length - 50); }

  color(token) {
    const level = shade(token.logprob);
    if (this.mode === "most" && level < 3) return "";
    if (this.mode === "least" && level > 1) return "";
    return `p${level}`;
  }

  // The token at a place on the screen, or before a place in the text.
  tokenAt(x, y) {
    const box = document.elementsFromPoint(x, y).find((element) => element.matches(".shades .t i"));
    return box ? Number(box.parentElement.dataset.index) : -1;
  }

  tokenBefore(place) { return this.tokens.findIndex((token) => token.start < place && place <= token.end); }

  boxOf(index) { return (this.marks.children[index].firstElementChild ?? this.tail).getBoundingClientRect(); }

  mark(index) {
    for (const mark of this.marks.querySelectorAll(".now")) mark.classList.remove("now");
    if (index >= 0) this.marks.children[index].classList.add("now");
  }
}
