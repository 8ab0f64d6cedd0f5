// Requests to the server this page came from. The key, where one is asked for, stays in this tab.

const KEY = "gpt3.key";

export class ApiError extends Error {
  constructor(status, error) {
    super(error?.message ?? `the server answered ${status}`);
    this.status = status;
    this.code = error?.code;
  }
}

export function setKey(key) { sessionStorage.setItem(KEY, key); }

async function call(path, body, signal) {
  const headers = { "Content-Type": "application/json" };
  const key = sessionStorage.getItem(KEY);
  if (key) headers.Authorization = `Bearer ${key}`;
  let answer;
  try {
    answer = await fetch(path, { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body), signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, { message: "The server cannot be reached. Is gpt3 serve still running?" });
  }
  if (!answer.ok) throw new ApiError(answer.status, (await answer.json().catch(() => null))?.error);
  return answer;
}

// The served models as `data`, and those that can be loaded as `available`.
export async function models() { return (await call("/v1/models")).json(); }

export async function load(model) { return (await call("/v1/models/load", { model })).json(); }

export const COMPLETIONS = "/v1/completions", CHAT = "/v1/chat/completions";

// An answer as a whole. With `max_tokens: 0` it counts tokens, and echoed it scores them.
export async function ask(path, body, signal) { return (await call(path, body, signal)).json(); }

// Yields the chunks of a streamed answer.
export async function* stream(path, body, signal) {
  const answer = await call(path, { ...body, stream: true }, signal);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) throw new ApiError(0, { message: "The server ended the answer early." });
    held += value;
    const events = held.split("\n\n");
    held = events.pop();
    for (const event of events) {
      const data = event.replace(/^data: /, "");
      if (data === "[DONE]") return;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new ApiError(0, chunk.error);
      yield chunk;
    }
  }
}
