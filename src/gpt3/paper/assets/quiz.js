// The quiz of section 3.9.4: statistics (as in detection.py), and the page. QUIZ has the articles.
"use strict";

const UNSURE = 2;
const SCALE = ["Very likely written by a human", "More likely written by a human", "I don’t know",
  "More likely written by a machine", "Very likely written by a machine"];

// ---- statistics

const sum = (values) => values.reduce((a, b) => a + b, 0);
const mean = (values) => sum(values) / values.length;
const variance = (values) => sum(values.map((v) => (v - mean(values)) ** 2)) / (values.length - 1);

function accuracy(session) {
  const decided = session.answers.filter((one) => one.answer !== UNSURE);
  const right = decided.filter((one) => (one.answer > UNSURE) === one.machine);
  return decided.length ? right.length / decided.length : null;
}

function accuracies(sessions, model) {
  return sessions.filter((s) => s.model === model).map(accuracy).filter((value) => value !== null);
}

function unsure(sessions, model) {
  const answers = sessions.filter((s) => s.model === model).flatMap((s) => s.answers);
  return answers.length ? answers.filter((one) => one.answer === UNSURE).length / answers.length : 0;
}

// P(|T| > t) of Student's distribution, by Simpson's rule on cos(x)^(freedom - 1).
function tail(t, freedom) {
  const integral = (low) => {
    const steps = 4000, h = (Math.PI / 2 - low) / steps;
    let total = 0;
    for (let i = 0; i <= steps; i++) {
      const weight = i === 0 || i === steps ? 1 : i % 2 ? 4 : 2;
      total += weight * Math.max(0, Math.cos(low + i * h)) ** (freedom - 1);
    }
    return total * h / 3;
  };
  return integral(Math.atan(Math.abs(t) / Math.sqrt(freedom))) / integral(0);
}

function tTest(some, others) {
  const freedom = some.length + others.length - 2;
  if (Math.min(some.length, others.length) < 2) return null;
  const pooled = (variance(some) * (some.length - 1) + variance(others) * (others.length - 1)) / freedom;
  if (pooled === 0) return null;
  const t = (mean(some) - mean(others)) / Math.sqrt(pooled * (1 / some.length + 1 / others.length));
  return { t, p: tail(t, freedom) };
}

function margin(values) {
  if (values.length < 2) return null;
  let low = 0, high = 1e3;
  for (let i = 0; i < 60; i++) {
    const middle = (low + high) / 2;
    if (tail(middle, values.length - 1) > 0.05) low = middle; else high = middle;
  }
  return high * Math.sqrt(variance(values) / values.length);
}

function powerLaw(points) {
  if (new Set(points.map(([size]) => size)).size < 2 || points.some(([, value]) => value <= 0)) return null;
  const x = points.map(([size]) => Math.log(size)), y = points.map(([, value]) => Math.log(value));
  const slope = sum(x.map((v, i) => (v - mean(x)) * (y[i] - mean(y)))) / sum(x.map((v) => (v - mean(x)) ** 2));
  return { factor: Math.exp(mean(y) - slope * mean(x)), exponent: slope };
}

// A session's questions: all titles in a random order, half of the articles the model's, half people's.
function questions(quiz, model, random = Math.random) {
  const shuffled = (values) => {
    const result = [...values];
    for (let i = result.length - 1; i > 0; i--) {
      const j = Math.floor(random() * (i + 1));
      [result[i], result[j]] = [result[j], result[i]];
    }
    return result;
  };
  const machine = shuffled(quiz.titles.map((_, i) => i % 2 === 0));
  return shuffled(quiz.titles.map((title, i) => ({
    title: title.id, heading: title.title, subtitle: title.subtitle, machine: machine[i],
    text: machine[i] ? model.articles[title.id] : title.article,
  })));
}

// The sessions about articles that the quiz still has.
function present(quiz, sessions) {
  return sessions.filter((s) => quiz.models.some((model) => model.name === s.model && model.digest === s.articles));
}

// The models that have been asked about least; one of them is next.
function next(quiz, sessions, random = Math.random) {
  const count = (model) => sessions.filter((s) => s.model === model.name).length;
  const least = Math.min(...quiz.models.map(count));
  const some = quiz.models.filter((model) => count(model) === least);
  return some[Math.floor(random() * some.length)];
}

// ---- the page

function page(quiz) {
  const at = (id) => document.getElementById(id);
  const key = `gpt3-quiz-${quiz.quiz}`;
  let sessions = [], current = null;
  try { sessions = JSON.parse(localStorage.getItem(key)) || []; } catch { /* nothing is kept */ }
  const keep = () => { try { localStorage.setItem(key, JSON.stringify(sessions)); } catch { /* nothing is kept */ } };
  const open = (id) => {
    for (const part of ["start", "question", "results"]) at(part).hidden = part !== id;
    window.scrollTo(0, 0);
  };

  function begin() {
    const model = next(quiz, present(quiz, sessions));
    current = { id: `${Date.now()}-${Math.floor(Math.random() * 1e9)}`, model: model.name, articles: model.digest, answers: [],
      questions: questions(quiz, model) };
    ask();
  }

  function ask() {
    const number = current.answers.length, one = current.questions[number];
    if (!one) return end();
    at("where").textContent = `Article ${number + 1} of ${current.questions.length}`;
    at("title").textContent = one.heading;
    at("subtitle").textContent = one.subtitle;
    at("text").textContent = one.text;
    current.began = Date.now();
    open("question");
    at("title").focus();
  }

  function answer(choice) {
    const { title, machine } = current.questions[current.answers.length];
    current.answers.push({ title, machine, answer: choice, seconds: Math.round((Date.now() - current.began) / 100) / 10 });
    ask();
  }

  function end() {
    const { id, model, articles, answers } = current;
    current = null;
    let told = "";
    if (answers.length) {
      sessions.push({ id, model, articles, answers });
      keep();
      const value = accuracy(sessions[sessions.length - 1]);
      told = `That was ${model}: ` + (value === null ? "you were never sure." : `${Math.round(100 * value)}% right.`);
    }
    results(told);
  }

  function results(told) {
    const control = quiz.models.find((model) => model.parameters === null).name;
    const mine = present(quiz, sessions), reference = accuracies(mine, control);
    const rows = [["model", "sessions", "accuracy", "t (p)", "I don’t know"]], points = [];
    for (const { name, parameters } of quiz.models) {
      const values = accuracies(mine, name);
      if (!values.length) continue;
      const half = margin(values), test = name === control ? null : tTest(reference, values);
      rows.push([name, `${values.length}`, `${(100 * mean(values)).toFixed(0)}%` + (half === null ? "" : ` ± ${(100 * half).toFixed(0)}`),
        test ? `${test.t.toFixed(1)} (${test.p.toPrecision(1)})` : "–", `${(100 * unsure(mine, name)).toFixed(1)}%`]);
      if (parameters !== null) points.push([parameters, mean(values)]);
    }
    const cell = (tag, text) => { const made = document.createElement(tag); made.textContent = text; return made; };
    at("table").replaceChildren(...rows.map((row, number) => {
      const line = document.createElement("tr");
      line.append(...row.map((text) => cell(number ? "td" : "th", text)));
      return line;
    }));
    const law = powerLaw(points);
    at("law").textContent = law ? `Power law: accuracy = ${law.factor.toPrecision(3)} × parameters^${law.exponent.toPrecision(3)}` : "";
    at("told").textContent = told || (sessions.length ? "" : "There are no answers yet.");
    open("results");
  }

  function download() {
    const text = JSON.stringify({ format: quiz.format, quiz: quiz.quiz, sessions }, null, 1) + "\n";
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
    link.download = `answers-${Date.now()}.json`;
    link.click();
    URL.revokeObjectURL(link.href);
  }

  SCALE.forEach((text, choice) => {
    const button = document.createElement("button"), hint = document.createElement("kbd");
    hint.textContent = choice + 1;
    button.append(hint, text);
    button.addEventListener("click", () => answer(choice));
    at("scale").append(button);
  });
  document.addEventListener("keydown", (event) => {
    if (!at("question").hidden && !event.ctrlKey && !event.metaKey && !event.altKey && !event.repeat && "12345".includes(event.key))
      answer(Number(event.key) - 1);
  });
  at("begin").addEventListener("click", begin);
  at("again").addEventListener("click", begin);
  at("show").addEventListener("click", () => results(""));
  at("finish").addEventListener("click", end);
  at("download").addEventListener("click", download);
  at("forget").addEventListener("click", () => {
    if (confirm("Delete all answers in this browser?")) { sessions = []; keep(); results(""); }
  });
}

if (typeof module !== "undefined") module.exports = { accuracy, accuracies, unsure, tail, tTest, margin, powerLaw, questions, next, present };
if (typeof document !== "undefined") page(QUIZ);
