// Chat with a model that has a chat template.

import { element } from "./dialogs.js";

const $ = (id) => document.getElementById(id);

export class Chat {
  constructor() { this.messages = []; this.draw(); }

  body() {
    const system = $("system").value.trim();
    return [...(system ? [{ role: "system", content: system }] : []), ...this.messages];
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
    const said = whole && this.messages.at(-1)?.role === "user" ? this.messages.pop().content : null;
    this.draw();
    return said;
  }

  draw() {
    const items = this.messages.map(({ role, content }) => {
      const item = element("li", { className: role, textContent: content || "…" });
      item.setAttribute("aria-label", role === "user" ? "You" : "Assistant");
      return item;
    });
    if (!items.length) items.push(element("li", { className: "none", textContent: "Type a message to begin." }));
    $("talk").replaceChildren(...items);
    $("talk").scrollTop = $("talk").scrollHeight;
  }
}
