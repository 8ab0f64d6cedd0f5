"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const panel = document.getElementById("token");
  const place = new Map();  // span → [text, token]
  const texts = [...document.querySelectorAll(".text")].map((box, text) => {
    const spans = [...box.children];
    spans.forEach((span, token) => place.set(span, [text, token]));
    return spans;
  });
  const make = (tag, text, name) => {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    if (name) element.className = name;
    return element;
  };
  const percent = p => p >= 0.9995 ? (100 * p).toFixed(2) + "%" : p >= 0.001 ? (100 * p).toPrecision(3) + "%" : p.toExponential(1);
  const mark = text => text.replace(/ /g, "␣").replace(/\n/g, "↵").replace(/\t/g, "⇥");
  let now = null;

  function show(span) {
    if (span === now) return;
    if (now) now.classList.remove("now");
    now = span;
    span.classList.add("now");
    const [text, token] = place.get(span);
    const [id, start, end, logprob, rank, entropy, ids, logprobs] = data.texts[text][token];
    const list = make("dl");
    const figure = (label, value) => list.append(make("dt", label), make("dd", value));
    figure("probability", percent(Math.exp(logprob)));
    figure("rank", rank.toLocaleString("en"));
    figure("surprise", (-logprob / Math.LN2).toFixed(2) + " bits");
    figure("entropy", (entropy / Math.LN2).toFixed(2) + " bits");
    figure("id", String(id));
    figure("bytes", end - start > 1 ? `${start} to ${end - 1}` : String(start));
    const top = make("ol");
    ids.forEach((other, i) => {
      const item = make("li", undefined, other === id ? "said" : "");
      const bar = make("span", undefined, "bar");
      bar.style.width = 100 * Math.exp(logprobs[i]) + "%";
      item.append(bar, make("span", mark(data.names[other]), "word"), make("span", percent(Math.exp(logprobs[i]))));
      top.append(item);
    });
    const word = span.textContent ? mark(span.textContent) : "part of a character";
    panel.replaceChildren(make("b", word), list, make("div", "likeliest here", "soft"), top);
  }

  function go(span) {  // one token of a text is in the order of Tab, the arrow keys choose which
    const [text] = place.get(span);
    texts[text].at(-1).parentNode.querySelectorAll("[tabindex]").forEach(other => other.removeAttribute("tabindex"));
    span.tabIndex = 0;
    span.focus();
  }

  texts.forEach((spans, text) => {
    if (!spans.length) return;
    spans[0].tabIndex = 0;
    const box = spans[0].parentNode;
    const tokenOf = event => event.target.closest(".t");
    box.addEventListener("mouseover", event => { const span = tokenOf(event); if (span) show(span); });
    box.addEventListener("click", event => { const span = tokenOf(event); if (span && getSelection().isCollapsed) go(span); });
    box.addEventListener("focusin", event => { const span = tokenOf(event); if (span) show(span); });
    box.addEventListener("keydown", event => {
      const span = tokenOf(event);
      if (!span || event.ctrlKey || event.altKey || event.metaKey) return;
      const at = place.get(span)[1];
      let to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: spans.length - 1 }[event.key];
      if (event.key === "ArrowUp" || event.key === "ArrowDown") to = lineBeside(spans, at, event.key === "ArrowUp" ? -1 : 1);
      if (to === undefined) return;
      event.preventDefault();
      if (spans[to]) go(spans[to]);
    });
  });

  function lineBeside(spans, at, step) {  // the token nearest above or below
    const from = spans[at].getClientRects()[0];
    let best, line;
    for (let i = at + step; spans[i]; i += step) {
      const box = spans[i].getClientRects()[0];
      if (!box || (step > 0 ? box.top <= from.top + 2 : box.top >= from.top - 2)) continue;
      if (line === undefined) line = box.top;
      if (Math.abs(box.top - line) > 2) break;
      const far = Math.abs(box.left - from.left);
      if (!best || far < best.far) best = { far, i };
    }
    return best && best.i;
  }
})();
