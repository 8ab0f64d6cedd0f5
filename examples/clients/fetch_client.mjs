// A model served by `gpt3 serve`, asked with fetch: one answer, then a stream.
// usage: node fetch_client.mjs ["Your prompt"]   (GPT3_URL: the server; GPT3_API_KEY: its key, if it has one)
// In a web page the same code works for a page that the server itself gives; it sends no CORS headers.
const url = process.env.GPT3_URL ?? "http://127.0.0.1:8000";
const headers = { "Content-Type": "application/json", Authorization: `Bearer ${process.env.GPT3_API_KEY ?? "none"}` };
const prompt = process.argv[2] ?? "The sea was";

async function post(path, body) {
  const response = await fetch(url + path, { method: "POST", headers, body: JSON.stringify(body) });
  if (!response.ok) throw new Error((await response.json()).error.message);
  return response;
}

async function* stream(body) {
  const response = await post("/v1/completions", { ...body, stream: true });
  let rest = "";
  for await (const text of response.body.pipeThrough(new TextDecoderStream())) {
    const events = (rest + text).split("\n\n"); // an event may come in several parts
    rest = events.pop();
    for (const event of events) {
      const data = event.replace(/^data: /, "");
      if (data === "[DONE]") return;
      const { choices, error } = JSON.parse(data);
      if (error) throw new Error(error.message); // after the first piece an error is an event, too
      for (const choice of choices) yield choice.text;
    }
  }
}

try {
  const body = { prompt, max_tokens: 20, temperature: 0.7, seed: 1 }; // with a seed both have the same text
  const answer = await (await post("/v1/completions", body)).json();
  console.log(prompt + answer.choices[0].text);
  process.stdout.write(prompt);
  for await (const piece of stream(body)) process.stdout.write(piece);
  console.log();
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
}
