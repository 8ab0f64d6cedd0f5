// Counts the tokens of the text or the chat a moment after they change, and where probabilities are shown has the text scored.

import * as api from "./api.js";

const DELAY = 350;  // milliseconds
const shown = document.getElementById("count");

export class Counter {
  // `state()`: the model, whether to count the chat, and whether a request is running. `scored` is called after a text was.
  constructor(paper, chat, state, scored) { Object.assign(this, { paper, chat, state, scored, timer: 0, request: null }); }

  recount() {
    clearTimeout(this.timer);
    this.request?.abort();
    const { model, chatting, busy } = this.state();
    if (!model || busy || (chatting && !this.chat.messages.length)) { shown.textContent = ""; return; }
    this.timer = setTimeout(() => this.count(model, chatting), DELAY);
  }

  async count(model, chatting) {
    const { paper, chat } = this, text = paper.text, score = !chatting && paper.mode !== "off" && paper.scored < text.length;
    const body = { model: model.id, max_tokens: 0, ...(chatting ? { messages: chat.body() } : { prompt: text }) };
    if (score) Object.assign(body, { echo: true, logprobs: 5 });
    this.request = new AbortController();
    try {
      const answer = chatting || text ? await api.ask(chatting ? api.CHAT : api.COMPLETIONS, body, this.request.signal) : null;
      const now = this.state();
      if (now.busy || now.chatting !== chatting || text !== paper.text) return;
      this.show(`${(answer?.usage.prompt_tokens ?? 0).toLocaleString()} / ${model.context_length.toLocaleString()} tokens`, false);
      if (score) { paper.score(answer.choices[0].logprobs); this.scored(); }
    } catch (error) {
      if (error.code === "context_length_exceeded") this.show(`more than ${model.context_length.toLocaleString()} tokens`, true);
    }
  }

  show(text, over) {
    shown.textContent = text;
    shown.classList.toggle("over", over);
  }
}
