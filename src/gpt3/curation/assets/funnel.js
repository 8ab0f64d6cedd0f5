"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const page = document.getElementById("page");

function add(parent, tag, text, name) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (name) element.className = name;
  parent.append(element);
  return element;
}

function table(head, rows) {
  const made = add(page, "table");
  const first = add(made, "tr");
  head.forEach((title, i) => add(first, "th", title, i ? "number" : ""));
  for (const row of rows) {
    const line = add(made, "tr");
    row.forEach((value, i) => add(line, "td", typeof value === "number" ? value.toLocaleString("en") : value, i ? "number" : ""));
  }
}

const percent = (part, whole) => (whole ? (100 * part / whole).toFixed(1) + "%" : "");

add(page, "h1", "Corpus");
table(
  ["source", "documents", "kept", "", "MB", "MB kept", "", "tokens"],
  Object.entries(data.sources).map(([name, s]) => [
    name, s.documents, s.kept_documents, percent(s.kept_documents, s.documents),
    +(s.text_bytes / 1e6).toFixed(1), +(s.kept_text_bytes / 1e6).toFixed(1), percent(s.kept_text_bytes, s.text_bytes), s.shards.tokens,
  ]),
);
for (const [name, s] of Object.entries(data.sources)) {
  add(page, "h2", `${name}: what is dropped`);
  table(
    ["reason", "documents", "", "MB"],
    Object.entries(s.dropped).map(([reason, cost]) => [
      reason, cost.documents, percent(cost.documents, s.documents), +(cost.text_bytes / 1e6).toFixed(2),
    ]),
  );
}
const skipped = Object.entries(data.sources).flatMap(([name, s]) =>
  Object.entries(s.skipped).map(([reason, found]) => [`${name}: ${reason}`, found.count, found.places.slice(0, 3).join(" ")]));
if (skipped.length) {
  add(page, "h2", "Not read");
  table(["source", "count", "the first"], skipped);
}
if (data.quality) {
  const q = data.quality;
  add(page, "h2", "Quality");
  add(page, "p", `Held-out AUC ${q.auc.toFixed(3)}; correlation of score and length ${q.correlation_with_length.toFixed(2)}; ` +
    `${q.rule}, alpha ${q.alpha}; keeps ${(100 * q.share_kept).toFixed(1)}% of raw text.`);
  add(page, "p", `Words of good text: ${q.good_words.join(" ")}`);
  add(page, "p", `Words of raw text: ${q.raw_words.join(" ")}`);
  table(
    ["score", "good documents", "raw documents"],
    q.histograms.good.map((count, i) => [`${(i / 20).toFixed(2)} to ${((i + 1) / 20).toFixed(2)}`, count, q.histograms.raw[i]]),
  );
}
if (data.near_duplicates) {
  const n = data.near_duplicates;
  add(page, "h2", "Near-duplicates");
  add(page, "p", `${n.clusters.toLocaleString("en")} clusters; the largest has ${n.largest_cluster.toLocaleString("en")} documents. ` +
    `Comparisons left out: ${n.comparisons_left_out.toLocaleString("en")}.`);
  table(["documents in a cluster", "clusters"], Object.entries(n.cluster_sizes));
}
for (const [reason, texts] of Object.entries(data.samples)) {
  add(page, "h2", reason === "kept" ? "Samples of what is kept" : `Samples: ${reason}`);
  for (const text of texts) add(page, "pre", text);
}
