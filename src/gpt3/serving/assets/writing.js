// Requests that write: a model's continuation of a sheet's text, and its answer in a chat. `made` gets what is known of the result:
// tokens, why it ended, and whether the context left less than was asked for. `grown` is called with it.

import * as api from "./api.js";
import * as settings from "./settings.js";

async function countTokens(path, body, signal) {
  return (await api.ask(path, { ...body, max_tokens: 0 }, signal)).usage.prompt_tokens;
}

function limit(body, left, made) {
  const wanted = body.max_tokens;
  settings.fit(body, left);
  made.full = body.max_tokens < wanted;
}

export async function continueText(sheet, model, values, signal, made, grown = () => {}) {
  const prompt = sheet.text, base = prompt.length, from = Array.from(prompt).length;
  const body = { model: model.id, prompt, ...settings.parameters(values, false), logprobs: 5 };
  limit(body, model.context_length - await countTokens(api.COMPLETIONS, { model: model.id, prompt }, signal), made);
  const characters = [];
  for await (const { choices: [choice] } of api.stream(api.COMPLETIONS, body, signal)) {
    characters.push(...choice.text);
    sheet.append(choice.text, true);
    if (choice.logprobs) sheet.addTokens(choice.logprobs, base, from, characters);
    made.tokens += choice.logprobs?.tokens.length ?? 0;
    made.reason = choice.finish_reason ?? made.reason;
    grown(made);
  }
  sheet.draw();
}

// The answer to a chat's last message. What is answered stays, also when the rest fails.
export async function answer(chat, model, values, signal, made) {
  const body = { model: model.id, ...settings.parameters(values, true) };
  const counted = (messages) => countTokens(api.CHAT, { model: model.id, messages }, signal);
  limit(body, await chat.fit(counted, model.context_length, body.max_tokens), made);
  body.messages = chat.body();
  chat.begin();
  for await (const { choices: [{ delta, finish_reason: reason }] } of api.stream(api.CHAT, body, signal)) {
    if (delta.content) { chat.append(delta.content); made.tokens += 1; }
    made.reason = reason ?? made.reason;
  }
}
