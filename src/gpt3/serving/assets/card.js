// The card of the token under the pointer or before the caret: its probability, and the likeliest tokens there.

import { element } from "./dialogs.js";
import { visible } from "./paper.js";

const $ = (id) => document.getElementById(id);

export class Card {
  // `busy()`: a request is running; `branch` continues from a token of this number with another one.
  constructor(paper, busy, branch) {
    Object.assign(this, { paper, busy, branch, shown: -1, pinned: false, leaving: 0 });  // a pinned one stays when the pointer leaves
    const leave = () => { if (!this.pinned) this.leaving = setTimeout(() => this.hide(), 250); };
    $("text").addEventListener("mousemove", (event) => {
      if (paper.mode === "off" || event.buttons) return;
      const index = paper.tokenAt(event.clientX, event.clientY);
      clearTimeout(this.leaving);
      if (index >= 0 && index !== this.shown) this.describe(index, false);
      else if (index < 0) leave();
    });
    $("text").addEventListener("mouseleave", leave);
    $("token").addEventListener("mouseenter", () => clearTimeout(this.leaving));
    $("token").addEventListener("mouseleave", leave);
    $("token").addEventListener("keydown", (event) => {
      const buttons = [...$("token").querySelectorAll("button:not(:disabled)")], at = buttons.indexOf(document.activeElement);
      const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (step) { event.preventDefault(); buttons[(at + step + buttons.length) % buttons.length]?.focus(); }
      if (event.key === "Escape") { this.hide(); $("text").focus(); }
    });
    $("text").addEventListener("keyup", (event) => { if (/^(Arrow|Home|End|Page)/.test(event.key) && !event.altKey) this.atCaret(); });
    $("text").addEventListener("click", () => this.atCaret());
    $("text").addEventListener("scroll", () => { if (!busy()) this.hide(); });
  }

  describe(index, pin) {
    const { paper } = this, token = paper.tokens[index];
    if (!token || paper.mode === "off" || this.busy()) return;
    Object.assign(this, { shown: index, pinned: pin });
    paper.mark(index);
    const per = (logprob) => `${(100 * Math.exp(logprob)).toFixed(2)}%`;
    const covered = token.top.slice(0, 5).reduce((sum, [, logprob]) => sum + Math.exp(logprob), 0);
    const items = token.top.map(([word, logprob]) => {
      const bar = element("i"), fixed = /^bytes:|^<\|.*\|>$/.test(word);  // parts of characters and control tokens are no text
      bar.style.width = `${100 * Math.exp(logprob)}%`;
      const button = element("button", { disabled: fixed, title: fixed ? "" : "Continue from here with this token" },
        element("span", { className: "word", textContent: visible(word) }), element("span", { className: "share" }, bar),
        element("span", { className: "per", textContent: per(logprob) }));
      button.addEventListener("click", () => this.branch(index, word));
      return element("li", { className: word === token.text ? "said" : "" }, button);
    });
    $("token").replaceChildren(element("h2", { textContent: visible(token.text) }),
      element("p", { textContent: `${per(token.logprob)} · logprob ${token.logprob.toFixed(3).replace("-", "−")}` }), element("ol", {}, ...items),
      element("p", { textContent: `The top five cover ${(100 * covered).toFixed(1)}%. Choose one to branch from here.` }));
    if (pin) $("announcement").textContent = `${visible(token.text)}, ${per(token.logprob)}`;
    $("token").hidden = false;
    const box = paper.boxOf(index), card = $("token").getBoundingClientRect();
    const below = box.bottom + 8 + card.height < innerHeight;
    $("token").style.left = `${Math.max(8, Math.min(box.left, innerWidth - card.width - 12))}px`;
    $("token").style.top = `${Math.max(8, below ? box.bottom + 6 : box.top - card.height - 6)}px`;
  }

  hide() {
    $("token").hidden = true;
    Object.assign(this, { shown: -1, pinned: false });
    this.paper.mark(-1);
  }

  atCaret() {
    if (this.paper.mode === "off" || this.busy() || document.activeElement !== $("text")) return;
    const index = this.paper.tokenBefore($("text").selectionEnd);
    if (index >= 0) this.describe(index, true);
    else this.hide();
  }

  // Go into its list by keys.
  enter() {
    this.atCaret();
    $("token").querySelector("button:not(:disabled)")?.focus();
  }
}
