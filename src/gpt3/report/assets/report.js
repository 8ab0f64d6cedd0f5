"use strict";
// Draws the page from the JSON in #data. Text reaches the page as text nodes only, never as markup.
(() => {
  const DATA = JSON.parse(document.getElementById("data").textContent);
  const RUNS = DATA.runs, MANY = RUNS.length > 1, COLORS = 8;
  const FALL = .04; // the share of a run in which a loss falls from that of a guess
  const DASHES = ["", "6 4", "2 3", "9 3 2 3", "1 5"];
  const view = Object.assign({ x: "tokens", logX: false, zoom: null, smooth: true, hidden: new Set() }, DATA.live && history.state);
  const charts = [];

  // ---- elements -------------------------------------------------------------------------------------------------
  function make(node, attributes, children) {
    for (const [k, v] of Object.entries(attributes || {})) k.startsWith("on") ? node.addEventListener(k.slice(2), v) : node.setAttribute(k, v);
    for (const c of children.flat()) if (c !== null && c !== undefined) node.append(c);
    return node;
  }
  const el = (tag, attributes, ...children) => make(document.createElement(tag), attributes, children);
  const svg = (tag, attributes, ...children) => make(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
  const color = (i) => `var(--c${i % COLORS})`;
  const dot = (i) => { const d = el("span", { class: "dot" }); d.style.background = color(i); return d; };
  function choice(label, options, get, set) {
    const buttons = options.map(([value, text]) => el("button", { type: "button", onclick: () => { set(value); mark(); redraw(); } }, text));
    const mark = () => buttons.forEach((b, i) => b.setAttribute("aria-pressed", String(get() === options[i][0])));
    mark();
    return el("div", { class: "choice", role: "group", "aria-label": label }, buttons);
  }

  // ---- numbers --------------------------------------------------------------------------------------------------
  const UNITS = [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "K"]];
  const trim = (s) => s.includes(".") ? s.replace(/\.?0+$/, "") : s;
  function compact(v, digits = 3) {
    for (const [size, letter] of UNITS) if (Math.abs(v) >= size) return trim((v / size).toPrecision(Math.max(digits, String(Math.trunc(Math.abs(v) / size)).length))) + letter;
    return trim(Number(v.toPrecision(digits)).toString());
  }
  function format(v, kind) {
    if (v === null || v === undefined) return "–";
    if (kind === "percent") return trim((100 * v).toPrecision(3)) + "%";
    if (kind === "compact") return compact(v, 4);
    const size = Math.abs(v);
    if (v !== 0 && (size < 1e-3 || size >= 1e9)) return v.toExponential(2);
    return size >= 1e4 ? Math.round(v).toLocaleString("en") : trim(v.toPrecision(size >= 1000 ? 5 : 4));
  }
  function tick(v, step, kind) {
    if (kind === "percent") return trim((100 * v).toFixed(Math.max(0, -Math.floor(Math.log10(100 * step) + 1e-9)))) + "%";
    const size = Math.abs(v);
    if (v === 0) return "0";
    if (size >= 1000 || kind === "compact" && size >= 1) return compact(v, 4);
    if (size < 1e-3) return trim(v.toExponential(1).replace(/e.*/, "")) + "e" + v.toExponential().split("e")[1];
    return trim(v.toFixed(Math.min(12, Math.max(0, -Math.floor(Math.log10(step) + 1e-9)))));
  }
  function ticks(a, b, count, log) {
    if (log) {
      const found = [];
      const decades = Math.log10(b / a), multiples = decades > 3 ? [1] : decades > 1.2 ? [1, 2, 5] : [1, 1.5, 2, 3, 4, 5, 6, 8];
      for (let e = Math.floor(Math.log10(a)); e <= Math.ceil(Math.log10(b)); e++) for (const m of multiples) { const v = m * 10 ** e; if (v >= a * .999999 && v <= b * 1.000001) found.push(v); }
      const every = Math.ceil(found.length / (count + 2));
      return found.filter((_, i) => i % every === 0).map((v) => [v, v / 10]);
    }
    const raw = (b - a) / count, power = 10 ** Math.floor(Math.log10(raw)), m = raw / power;
    const step = power * (m > 7.1 ? 10 : m > 3.2 ? 5 : m > 1.4 ? 2 : 1), found = [];
    for (let i = Math.ceil(a / step - 1e-9); i * step <= b + step * 1e-9; i++) found.push([i * step, step]);
    return found;
  }

  // ---- one chart ------------------------------------------------------------------------------------------------
  function lines(chart) {
    const found = [];
    chart.series.forEach((item, k) => RUNS.forEach((run, r) => {
      const s = run.series[item.key];
      if (!s || view.hidden.has("run " + r) || chart.hidden.has(item.key)) return;
      const label = MANY ? run.name + (chart.series.length > 1 ? " · " + item.label : "") : item.label;
      found.push({ s, run: r, key: item.key, label, color: MANY ? r : k + chart.shift, dash: MANY ? DASHES[k % DASHES.length] : "", x: s[view.x] });
    }));
    return found;
  }
  const usable = (v, log) => v !== null && (!log || v > 0);

  function draw(chart) {
    const width = Math.max(220, chart.box.clientWidth || 320), height = chart.wide ? Math.min(380, Math.max(260, width * .38)) : 200;
    const left = 50, right = width - 12, top = 12, bottom = height - 26;
    chart.plot.setAttribute("viewBox", `0 0 ${width} ${height}`);
    chart.plot.setAttribute("height", height);
    chart.plot.replaceChildren();
    const shown = lines(chart), [a, b] = domainX();
    chart.geometry = { left, right, top, bottom, a, b, width };
    // y domain: all that is seen within the x domain, intervals and single batches too
    let low = Infinity, high = -Infinity, late = -Infinity;
    const settled = view.logX ? a * (b / a) ** FALL : a + FALL * (b - a);
    for (const l of shown) for (let i = 0; i < l.x.length; i++) {
      if (!usable(l.x[i], view.logX) || l.x[i] < a || l.x[i] > b || l.s.y[i] === null) continue;
      for (const v of [l.s.y[i], l.s.low && l.s.low[i], l.s.high && l.s.high[i]]) if (v !== null && v !== undefined && (!chart.log || v > 0)) { low = Math.min(low, v); high = Math.max(high, v); if (l.x[i] > settled) late = Math.max(late, v); }
    }
    if (low === Infinity) {
      chart.plot.append(svg("text", { x: width / 2, y: height / 2, "text-anchor": "middle", class: "none" }, shown.length ? "nothing to draw here" : "nothing chosen"));
      chart.geometry = null;
      return;
    }
    chart.cut.textContent = "";
    if (chart.focus && !chart.all && !view.zoom && late > low && high - low > 1.6 * (late - low)) { // the fall at the start would flatten the rest
      chart.cut.textContent = `cut at the top, reaches ${format(high, chart.format)}`;
      high = late + .12 * (late - low);
    }
    if (chart.log) { if (high <= low * 1.001) { low /= 1.1; high *= 1.1; } const pad = (high / low) ** .04; low /= pad; high *= pad; } else {
      if (chart.zero && low >= 0) low = 0;
      if (high - low < 1e-12 + Math.abs(high) * 1e-6) { const pad = Math.abs(high) * .1 || 1; high += pad; if (!(chart.zero && low === 0)) low -= pad; }
      const pad = (high - low) * .05; high += pad; if (!(chart.zero && low === 0)) low -= pad;
    }
    const scale = (v, p, q, u, w, log) => log ? u + (w - u) * Math.log(v / p) / Math.log(q / p) : u + (w - u) * (v - p) / (q - p);
    const X = (v) => scale(v, a, b, left, right, view.logX), Y = (v) => scale(v, low, high, bottom, top, chart.log);
    chart.geometry.X = X;
    for (const [v, step] of ticks(low, high, chart.wide ? 6 : 4, chart.log)) {
      chart.plot.append(svg("line", { x1: left, x2: right, y1: Y(v), y2: Y(v), class: "grid" }), svg("text", { x: left - 7, y: Y(v) + 4, "text-anchor": "end" }, tick(v, step, chart.format)));
    }
    for (const [v, step] of ticks(a, b, Math.max(2, Math.floor(width / 85)), view.logX)) {
      chart.plot.append(svg("line", { x1: X(v), x2: X(v), y1: bottom, y2: bottom + 4, class: "axis" }), svg("text", { x: X(v), y: bottom + 18, "text-anchor": X(v) > right - 14 ? "end" : "middle" }, tick(v, step, "compact")));
    }
    chart.plot.append(svg("line", { x1: left, x2: right, y1: bottom, y2: bottom, class: "axis" }));
    const clip = `clip${chart.index}`;
    chart.plot.append(svg("clipPath", { id: clip }, svg("rect", { x: left - 4, y: top - 8, width: right - left + 8, height: bottom - top + 9 })));
    const area = svg("g", { "clip-path": `url(#${clip})` });
    chart.plot.append(area);
    const path = (l, values) => {
      let d = "", pen = "M";
      for (let i = 0; i < l.x.length; i++) if (usable(l.x[i], view.logX) && usable(values[i], chart.log)) { d += `${pen}${X(l.x[i]).toFixed(1)} ${Y(values[i]).toFixed(1)}`; pen = "L"; } else pen = "M";
      return d;
    };
    if (chart.marks) RUNS.forEach((run, r) => { if (!view.hidden.has("run " + r)) for (const skip of run.skips) {
      const v = view.x === "step" ? skip.step : skip.tokens;
      if (!usable(v, view.logX) || v < a || v > b) continue;
      const x = X(v);
      area.append(svg("line", { x1: x, x2: x, y1: top, y2: bottom, class: "skipline" }), svg("path", { d: `M${x - 5} ${top - 8}h10l-5 8z`, class: "skip" }));
    } });
    for (const l of shown) if (l.s.low) { // from the low ends back along the high ends, a piece a gap
      let up = [], down = [], d = "";
      const close = () => { if (up.length) d += "M" + up.concat(down.reverse()).join("L") + "Z"; up = []; down = []; };
      for (let i = 0; i < l.x.length; i++) {
        if (!usable(l.x[i], view.logX) || !usable(l.s.low[i], chart.log) || !usable(l.s.high[i], chart.log)) { close(); continue; }
        up.push(`${X(l.x[i]).toFixed(1)} ${Y(l.s.low[i]).toFixed(1)}`); down.push(`${X(l.x[i]).toFixed(1)} ${Y(l.s.high[i]).toFixed(1)}`);
      }
      close();
      const fill = svg("path", { d, fill: color(l.color), "fill-opacity": .18 });
      if (l.s.thinned) { fill.setAttribute("stroke", color(l.color)); fill.setAttribute("stroke-opacity", .35); fill.setAttribute("stroke-width", .8); } // a lone spike stays visible
      area.append(fill);
    }
    for (const l of shown) {
      const smooth = view.smooth && l.s.smooth, line = (values, w, o) => area.append(svg("path", { d: path(l, values), fill: "none", stroke: color(l.color), "stroke-width": w, opacity: o, "stroke-dasharray": l.dash, "stroke-linejoin": "round", "stroke-linecap": "round" }));
      if (smooth) { line(l.s.y, 1, MANY ? .2 : .3); line(l.s.smooth, 2, 1); } else line(l.s.y, l.s.y.length > 200 ? 1.2 : 1.8, 1);
      for (let i = 0; i < l.x.length; i++) { // points where there are few, and where a gap on both sides would hide one
        const alone = (j) => j < 0 || j >= l.x.length || l.s.y[j] === null;
        if ((l.x.length <= 40 && !smooth || alone(i - 1) && alone(i + 1)) && usable(l.x[i], view.logX) && usable(l.s.y[i], chart.log)) {
          const x = X(l.x[i]), y = Y(l.s.y[i]);
          if (l.s.low && l.x.length === 1 && usable(l.s.low[i], chart.log)) area.append(svg("line", { x1: x, x2: x, y1: Y(l.s.low[i]), y2: Y(l.s.high[i]), stroke: color(l.color), "stroke-width": 5, opacity: .3 }));
          area.append(svg("circle", { cx: x, cy: y, r: 2.6, fill: color(l.color) }));
        }
      }
    }
    chart.cross = svg("line", { y1: top, y2: bottom, class: "cross", visibility: "hidden" });
    chart.spots = svg("g");
    chart.Y = Y;
    chart.plot.append(chart.cross, chart.spots);
  }

  let fullX = null;
  function domainX() {
    if (view.zoom) return view.zoom;
    if (!fullX) { // one domain for all charts, so that they can be read one below the other
      let a = Infinity, b = -Infinity;
      RUNS.forEach((run, r) => { if (!view.hidden.has("run " + r)) for (const s of Object.values(run.series)) for (const v of s[view.x]) if (usable(v, view.logX)) { a = Math.min(a, v); b = Math.max(b, v); } });
      if (a === Infinity) { a = view.logX ? 1 : 0; b = 10; }
      if (!view.logX && a > 0 && a < .2 * b) a = 0;
      if (a === b) { b = view.logX ? b * 2 : b + Math.max(1, Math.abs(b) * .1); a = view.logX ? a / 2 : a - Math.max(1, Math.abs(a) * .1); }
      fullX = [a, b];
    }
    return fullX;
  }
  function redraw() { fullX = null; hideTip(); charts.forEach(draw); }

  // ---- pointing and zooming -------------------------------------------------------------------------------------
  const tip = el("div", { class: "tip", hidden: "" });
  const hideTip = () => { tip.hidden = true; for (const c of charts) if (c.cross) { c.cross.setAttribute("visibility", "hidden"); c.spots.replaceChildren(); } };
  const nearest = (xs, v) => { let best = -1, gap = Infinity; for (let i = 0; i < xs.length; i++) if (xs[i] !== null && Math.abs(xs[i] - v) < gap) { gap = Math.abs(xs[i] - v); best = i; } return best; };
  function point(chart, event) {
    const g = chart.geometry;
    if (!g) return;
    const bounds = chart.plot.getBoundingClientRect(), px = Math.min(g.right, Math.max(g.left, (event.clientX - bounds.left) * g.width / bounds.width));
    const share = (px - g.left) / (g.right - g.left), v = view.logX ? g.a * (g.b / g.a) ** share : g.a + share * (g.b - g.a);
    for (const c of charts) if (c.geometry && c.cross) { const x = c.geometry.X(v); c.cross.setAttribute("x1", x); c.cross.setAttribute("x2", x); c.cross.setAttribute("visibility", "visible"); c.spots.replaceChildren(); }
    const rows = [], skipRows = [];
    for (const l of lines(chart)) {
      const i = nearest(l.x, v);
      if (i < 0) continue;
      const smooth = view.smooth && l.s.smooth ? l.s.smooth[i] : null, y = smooth !== null ? smooth : l.s.y[i];
      let text = format(y, chart.format);
      if (l.s.low && l.s.low[i] !== null) text += ` (${format(l.s.low[i], chart.format)} to ${format(l.s.high[i], chart.format)})`;
      else if (smooth !== null) text += ` (batch ${format(l.s.y[i], chart.format)})`;
      const at = compact(l.s[view.x][i], 4);
      rows.push(el("div", { class: "row" }, dot(l.color), el("span", {}, l.label, el("span", { class: "soft" }, ` at ${at}`)), el("b", {}, text)));
      if (usable(y, chart.log) && l.x[i] >= g.a && l.x[i] <= g.b) chart.spots.append(svg("circle", { cx: g.X(l.x[i]), cy: chart.Y(y), r: 4, fill: color(l.color), stroke: "var(--card)", "stroke-width": 1.5 }));
    }
    if (chart.marks) RUNS.forEach((run, r) => { if (!view.hidden.has("run " + r)) for (const skip of run.skips) {
      const x = view.x === "step" ? skip.step : skip.tokens;
      if (usable(x, view.logX) && Math.abs(g.X(x) - px) < 5 && skipRows.length < 5) skipRows.push(el("div", { class: "skipped" }, `${MANY ? run.name + " " : ""}step ${skip.step.toLocaleString("en")} skipped: ${skip.reason}`));
    } });
    tip.replaceChildren(el("div", { class: "soft" }, view.x === "step" ? `step ${Math.round(v).toLocaleString("en")}` : `${compact(v, 4)} tokens`), ...rows, ...skipRows);
    tip.hidden = false;
    const w = tip.offsetWidth, h = tip.offsetHeight, x = event.clientX + 16, y = event.clientY + 16;
    tip.style.left = Math.max(4, x + w > innerWidth - 6 ? event.clientX - w - 12 : x) + "px";
    tip.style.top = Math.max(4, y + h > innerHeight - 6 ? event.clientY - h - 12 : y) + "px";
  }
  function interactive(chart) {
    let from = null, box = null;
    const at = (event) => { const g = chart.geometry, r = chart.plot.getBoundingClientRect(); return Math.min(g.right, Math.max(g.left, (event.clientX - r.left) * g.width / r.width)); };
    const value = (px) => { const g = chart.geometry, s = (px - g.left) / (g.right - g.left); return view.logX ? g.a * (g.b / g.a) ** s : g.a + s * (g.b - g.a); };
    const drop = () => { if (box) box.remove(); box = null; from = null; };
    chart.plot.addEventListener("pointermove", (event) => {
      point(chart, event);
      if (from === null || !chart.geometry) return;
      const to = at(event), g = chart.geometry;
      if (!box) { box = svg("rect", { class: "select", y: g.top, height: g.bottom - g.top }); chart.plot.append(box); }
      box.setAttribute("x", Math.min(from, to)); box.setAttribute("width", Math.abs(to - from));
    });
    chart.plot.addEventListener("pointerdown", (event) => { if (event.button === 0 && event.pointerType !== "touch" && chart.geometry) { from = at(event); chart.plot.setPointerCapture(event.pointerId); } });
    chart.plot.addEventListener("pointerup", (event) => {
      if (from !== null && chart.geometry && Math.abs(at(event) - from) > 6) zoom([value(Math.min(from, at(event))), value(Math.max(from, at(event)))]);
      drop();
    });
    chart.plot.addEventListener("pointercancel", drop);
    chart.plot.addEventListener("pointerleave", hideTip);
    chart.plot.addEventListener("dblclick", () => zoom(null));
  }
  const whole = el("button", { type: "button", class: "plain", disabled: "", onclick: () => zoom(null) }, "whole run");
  function zoom(domain) { view.zoom = domain; whole.disabled = !domain; redraw(); }

  function legend(chart) { // a chart's own series
    const key = (k) => svg("svg", { width: 20, height: 8 }, svg("line", { x1: 1, x2: 19, y1: 4, y2: 4, "stroke-width": 2.5, "stroke-linecap": "round", stroke: MANY ? "currentColor" : color(k + chart.shift), "stroke-dasharray": MANY ? DASHES[k % DASHES.length] : "" }));
    return el("div", { class: "legend" }, chart.series.map((item, k) => el("button", { type: "button", "aria-pressed": "true", onclick: (event) => {
      const gone = chart.hidden.has(item.key);
      gone ? chart.hidden.delete(item.key) : chart.hidden.add(item.key);
      event.currentTarget.setAttribute("aria-pressed", String(gone)); fullX = null; draw(chart);
    } }, key(k), item.label)));
  }
  function chartCard(spec) {
    const plot = svg("svg", { class: "plot", role: "img", "aria-label": spec.title });
    const chart = Object.assign({}, spec, { plot, hidden: new Set(), log: false, index: charts.length, shift: 0 });
    // a validation set has one color on all charts: by its place after the train curve
    if (!MANY && spec.series.length && spec.series[0].key.startsWith("val/")) chart.shift = 1;
    const log = el("button", { type: "button", class: "log", "aria-pressed": "false", title: "logarithmic vertical axis", onclick: () => { chart.log = !chart.log; log.setAttribute("aria-pressed", String(chart.log)); draw(chart); } }, "log");
    const title = el("h3", {}, spec.title);
    chart.box = el("div", {}, plot);
    chart.cut = el("span", { class: "small faint" });
    const all = spec.focus ? el("button", { type: "button", class: "log", "aria-pressed": "false", title: "all of the vertical range", onclick: () => { chart.all = !chart.all; all.setAttribute("aria-pressed", String(!!chart.all)); draw(chart); } }, "all") : null;
    const card = el("div", { class: "card chart" + (spec.wide ? " wide" : "") },
      el("div", { class: "head" }, title, el("span", { class: "soft small" }, spec.unit), chart.cut, el("span", { class: "end" }, all, log)),
      spec.series.length > 1 ? legend(chart) : null, chart.box);
    charts.push(chart);
    interactive(chart);
    return card;
  }

  // ---- sections -------------------------------------------------------------------------------------------------
  const section = (title, ...children) => el("section", {}, title ? el("h2", {}, title) : null, ...children);
  const badge = (run) => el("span", { class: "badge " + (run.finished ? "done" : "going") }, run.finished ? "finished" : "not finished");

  function heading() {
    const theme = el("button", { type: "button", class: "plain", title: "light or dark", onclick: () => {
      const dark = document.documentElement.dataset.theme ? document.documentElement.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
      document.documentElement.dataset.theme = dark ? "light" : "dark";
    } }, "◐");
    theme.style.marginLeft = "auto";
    const one = RUNS[0];
    const head = el("header", {}, el("h1", {}, MANY ? `${RUNS.length} runs` : one.name), MANY ? null : badge(one), theme,
      el("div", { class: "where soft small" }, MANY ? "compared" : one.folder + (one.summary.length ? ` · last record ${one.written}` : "")));
    const notes = RUNS.flatMap((run) => run.notes.map((note) => el("p", { class: "note" }, (MANY ? run.name + ": " : "") + note)));
    if (!MANY) {
      const tiles = one.summary.map((s) => el("div", { class: "tile" }, el("span", {}, s.label), el("b", {}, s.text), el("i", {}, s.hint || "\u00a0")));
      return [head, ...notes, tiles.length ? el("div", { class: "card tiles" }, tiles) : el("p", { class: "soft" }, "No records yet.")];
    }
    const labels = [...new Set(RUNS.flatMap((run) => run.summary.map((s) => s.label)))];
    const best = (label) => { // the best value, if the runs differ in it
      const found = RUNS.map((run) => run.summary.find((s) => s.label === label)).filter((s) => s && s.better);
      const values = new Set(found.map((s) => s.value));
      return values.size > 1 ? (found[0].better === "low" ? Math.min : Math.max)(...values) : null;
    };
    const table = el("table", {}, el("thead", {}, el("tr", {}, el("th", {}, "run"), labels.map((l) => el("th", { class: "num" }, l)), el("th", {}, ""))),
      el("tbody", {}, RUNS.map((run, r) => el("tr", {}, el("td", { class: "name", title: run.folder }, dot(r), "\u2002" + run.name),
        labels.map((l) => { const s = run.summary.find((x) => x.label === l); return s ? el("td", { class: "num" + (s.better && s.value === best(l) ? " best" : ""), title: s.hint }, s.text) : el("td", { class: "num soft" }, "–"); }),
        el("td", {}, badge(run))))));
    const card = el("div", { class: "card scroll" }, table);
    card.style.marginTop = "20px";
    return [head, ...notes, card];
  }

  function toolbar() {
    const tokens = RUNS.some((run) => Object.values(run.series).some((s) => s.tokens.some((v) => v !== null)));
    if (!tokens) view.x = "step";
    const runs = MANY ? el("div", { class: "legend" }, RUNS.map((run, r) => el("button", { type: "button", "aria-pressed": String(!view.hidden.has("run " + r)), onclick: (event) => {
      const key = "run " + r, gone = view.hidden.has(key);
      gone ? view.hidden.delete(key) : view.hidden.add(key);
      event.currentTarget.setAttribute("aria-pressed", String(gone)); redraw();
    } }, dot(r), run.name))) : null;
    const smooth = RUNS.some((run) => Object.values(run.series).some((s) => s.smooth));
    const set = (change) => { Object.assign(view, change); view.zoom = null; whole.disabled = true; };
    return el("nav", { class: "bar", "aria-label": "curves" }, runs, el("span", { class: "end" }),
      choice("horizontal axis", [...(tokens ? [["tokens", "tokens"]] : []), ["step", "steps"]], () => view.x, (x) => set({ x })),
      choice("its scale", [[false, "linear"], [true, "log"]], () => view.logX, (logX) => set({ logX })),
      smooth ? choice("smoothing", [[true, "smooth"], [false, "raw"]], () => view.smooth, (s) => { view.smooth = s; }) : null, whole);
  }

  function skips() {
    const total = RUNS.reduce((n, run) => n + run.skipped, 0);
    if (!total) return null;
    const listed = RUNS.flatMap((run, r) => run.skips.map((skip) => [run, r, skip]));
    const row = ([run, r, skip]) => el("tr", {}, MANY ? el("td", { class: "name" }, dot(r), "\u2002" + run.name) : null, el("td", { class: "num" }, skip.step.toLocaleString("en")),
      el("td", { class: "num" }, skip.tokens === null ? "–" : compact(skip.tokens, 4)), el("td", {}, skip.reason), el("td", { class: "num" }, skip.windows.join(" to ")));
    const body = el("tbody", {}, listed.slice(0, 8).map(row));
    const more = listed.length > 8 ? el("button", { type: "button", onclick: () => { body.replaceChildren(...listed.map(row)); more.remove(); } }, `show all ${listed.length.toLocaleString("en")}`) : null;
    return section(`Skipped steps: ${total.toLocaleString("en")}`, el("div", { class: "card scroll" }, el("table", {}, el("thead", {}, el("tr", {}, MANY ? el("th", {}, "run") : null, el("th", { class: "num" }, "step"), el("th", { class: "num" }, "tokens"), el("th", {}, "reason"), el("th", { class: "num" }, "windows"))), body), more));
  }

  function samples() {
    const steps = [...new Set(RUNS.flatMap((run) => run.samples.map((s) => s.step)))].sort((p, q) => p - q);
    if (!steps.length) return null;
    const label = el("b", {}), grid = el("div", { class: "samples" });
    const slider = el("input", { type: "range", min: 0, max: steps.length - 1, value: steps.length - 1, "aria-label": "step of the samples", oninput: () => show(Number(slider.value)) });
    const move = (by) => () => show(Math.min(steps.length - 1, Math.max(0, Number(slider.value) + by)));
    const back = el("button", { type: "button", class: "plain", "aria-label": "earlier", onclick: move(-1) }, "‹"), on = el("button", { type: "button", class: "plain", "aria-label": "later", onclick: move(1) }, "›");
    function show(i) {
      slider.value = i;
      slider.setAttribute("aria-valuetext", `step ${steps[i]}`);
      back.disabled = i === 0; on.disabled = i === steps.length - 1;
      label.textContent = `step ${steps[i].toLocaleString("en")}`;
      const cards = [];
      RUNS.forEach((run, r) => { // the newest at or before this step
        const reached = run.samples.filter((s) => s.step <= steps[i]), newest = reached.length ? reached[reached.length - 1].step : null;
        for (const s of reached.filter((s) => s.step === newest)) cards.push([run, r, s]);
      });
      if (MANY) { // a row a prompt, a column a run
        const columns = new Set(cards.map((c) => c[1])).size;
        grid.style.gridTemplateColumns = columns > 1 && columns < 5 ? `repeat(${columns}, minmax(260px, 1fr))` : "";
        const order = [...new Set(cards.map((c) => c[2].prompt))]; cards.sort((p, q) => order.indexOf(p[2].prompt) - order.indexOf(q[2].prompt) || p[1] - q[1]); }
      grid.replaceChildren(...cards.map(([run, r, s]) => el("figure", { class: "sample" },
        MANY ? el("div", { class: "from" }, dot(r), el("span", {}, run.name + (s.step !== steps[i] ? ` · step ${s.step.toLocaleString("en")}` : ""))) : null,
        el("p", { class: "text" }, s.prompt ? el("span", { class: "prompt" }, s.prompt) : null, s.text))));
    }
    show(steps.length - 1);
    const card = el("div", { class: "card" }, el("div", { class: "stepper" }, label, back, slider, on), grid);
    grid.style.overflow = "auto hidden";
    return section("Samples", card);
  }

  function sources() {
    const given = RUNS.map((run, r) => [run, r]).filter(([run]) => run.sources.length);
    if (!given.length) return null;
    const percent = (v) => v === null ? "–" : format(v, "percent"), count = (v) => v === null ? "–" : compact(v, 4);
    const rows = given.flatMap(([run, r]) => run.sources.map((s) => {
      const bar = el("div", { class: "share" }), width = (v) => 100 * Math.min(1, Math.max(0, v)) + "%";
      if (s.share !== null) { const fill = el("i"); fill.style.width = width(s.share); if (MANY) fill.style.background = color(r); bar.append(fill); }
      if (s.asked !== null) { const mark = el("u", { title: `asked for: ${percent(s.asked)}` }); mark.style.left = `calc(${width(s.asked)} - 1px)`; bar.append(mark); }
      return el("tr", {}, MANY ? el("td", { class: "name" }, dot(r), "\u2002" + run.name) : null, el("td", {}, s.name), el("td", {}, bar), el("td", { class: "num" }, percent(s.share)), el("td", { class: "num" }, percent(s.asked)),
        el("td", { class: "num" }, s.epochs === null ? "–" : trim(s.epochs.toFixed(2))), el("td", { class: "num" }, count(s.tokens)), el("td", { class: "num" }, count(s.documents)));
    }));
    const heads = ["source", "", "share", "asked for", "epochs", "tokens", "documents"].map((h, i) => el("th", { class: i > 1 ? "num" : "" }, h));
    return section("Data", el("div", { class: "card scroll" }, el("table", {}, el("thead", {}, el("tr", {}, MANY ? el("th", {}, "run") : null, heads)), el("tbody", {}, rows))));
  }

  function settings(title, rows) {
    if (!rows.length) return null;
    const value = (v, tag) => v === null || v === "" ? el(tag, { class: "unset soft" }, v === null ? "–" : "not set") : el(tag, { class: "mono" }, v);
    if (!MANY) return section(title, el("dl", { class: "card pairs" }, rows.map((row) => el("div", {}, el("dt", {}, row.key), value(row.values[0], "dd")))));
    const body = el("tbody"), only = el("input", { type: "checkbox", onchange: () => fill() });
    const fill = () => body.replaceChildren(...rows.filter((row) => row.differs || !only.checked).map((row) => el("tr", { class: row.differs ? "differs" : "" }, el("th", { scope: "row" }, row.key), row.values.map((v) => value(v, "td")))));
    only.checked = rows.some((row) => row.differs) && rows.length > 12;
    fill();
    const differing = rows.filter((row) => row.differs).length;
    return el("section", {}, el("div", { class: "titled" }, el("h2", {}, title), el("span", { class: "soft small" }, `${differing} of ${rows.length} differ`), el("label", {}, only, "only what differs")),
      el("div", { class: "card scroll" }, el("table", {}, el("thead", {}, el("tr", {}, el("th", {}, ""), RUNS.map((run, r) => el("th", {}, dot(r), "\u2002" + run.name)))), body)));
  }

  function footer() {
    const thinned = RUNS.flatMap((run) => Object.values(run.series)).filter((s) => s.thinned);
    const said = charts.length ? ["Drag over a curve to look closer, double-click for the whole run."] : [];
    if (RUNS.some((run) => Object.values(run.series).some((s) => s.smooth))) said.push("Smooth: a moving average of the batches with a time constant of 2% of the run, the batches behind it.");
    if (RUNS.some((run) => Object.entries(run.series).some(([k, s]) => k.startsWith("val/") && s.low))) said.push("Bands of validation curves: confidence intervals.");
    if (thinned.length) said.push(`Up to ${Math.max(...thinned.map((s) => s.count)).toLocaleString("en")} records a curve are drawn as ${thinned[0].y.length} means; the band reaches from the least to the greatest value, so none is hidden.`);
    return el("footer", {}, said.join(" "));
  }

  const page = document.getElementById("page");
  const curves = DATA.groups.map((group) => section(group.title, el("div", { class: "charts" }, group.charts.map(chartCard))));
  make(page, {}, [heading(), curves.length ? toolbar() : null, curves, skips(), samples(), sources(), settings("Configuration", DATA.config), settings("Environment", DATA.environment), footer(), tip].filter(Boolean));
  zoom(view.zoom);
  const later = () => setTimeout(look, 1000 * DATA.live.seconds), look = () => document.hidden || !tip.hidden ? later() : fetch("", { method: "HEAD", cache: "no-store" }).then((answer) => {
    if (answer.headers.get("ETag") === DATA.live.state) return later();
    history.replaceState(view, ""); // what was chosen is kept, and the page itself when the server has ended
    location.reload();
  }, later);
  if (DATA.live) later(); // served while a run trains
  let wait = 0, seen = innerWidth;
  addEventListener("resize", () => { if (innerWidth !== seen) { seen = innerWidth; cancelAnimationFrame(wait); wait = requestAnimationFrame(redraw); } });
})();
