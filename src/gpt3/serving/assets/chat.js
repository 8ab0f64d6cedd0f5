// Chat with a model that has a chat template. The model no longer sees the oldest messages when its context is full.

import { element } from "./dialogs.js";

const $ = (id) => document.getElementById(id);

export class Chat {
  constructor() { this.restore([]); }

  restore(messages) {
    this.messages = messages.map(({ role, content }) => ({ role: role === "user" ? role : "assistant", content: String(content) }));
    this.unseen = 0;
    this.draw();
  }

  body() {
    const system = $("system").value.trim();
    return [...(system ? [{ role: "system", content: system }] : []), ...this.messages.slice(this.unseen)];
  }

  // Leave out as many of the oldest exchanges as it takes for an answer of this length, or of a quarter of the context, to fit.
  // Returns the number of tokens left for it. `count` counts those of messages.
  async fit(count, context, length) {
    for (;; this.unseen += 2) {
      const more = this.unseen + 2 < this.messages.length;
      try {
        const left = context - await count(this.body());
        if (left >= Math.min(length, Math.ceil(context / 4)) || !more) return left;
      } catch (error) { if (error.code !== "context_length_exceeded" || !more) throw error; }
    }
  }

  say(content) { this.messages.push({ role: "user", content }); this.draw(); }

  begin() { this.messages.push({ role: "assistant", content: "" }); this.draw(); }

  append(piece) {
    this.messages.at(-1).content += piece;
    $("talk").lastElementChild.textContent = this.messages.at(-1).content;
    $("talk").scrollTop = $("talk").scrollHeight;
  }

  // Take back the last answer; with `whole`, what was said before it, too.
  takeBack(whole) {
    if (this.messages.at(-1)?.role === "assistant") this.messages.pop();
    this.unseen = 0;
    const said = whole && this.messages.at(-1)?.role === "user" ? this.messages.pop().content : null;
    this.draw();
    return said;
  }

  draw() {
    const items = this.messages.map(({ role, content }, i) => {
      const item = element("li", { className: i < this.unseen ? `${role} unseen` : role, textContent: content || "…" });
      item.setAttribute("aria-label", role === "user" ? "You" : "Assistant");
      return item;
    });
    if (this.unseen) items.splice(this.unseen, 0, element("li", { className: "none", textContent: "The context is full: the model no longer sees the messages above." }));
    if (!items.length) items.push(element("li", { className: "none", textContent: "Type a message to begin." }));
    $("talk").replaceChildren(...items);
    $("talk").scrollTop = $("talk").scrollHeight;
  }
}
