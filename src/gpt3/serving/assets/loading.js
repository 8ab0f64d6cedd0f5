// Models that the server does not serve yet: the choice of one, how far it is, and the page's news of it.

import * as api from "./api.js";
import { showModels, size } from "./dialogs.js";

const OFTEN = 1000, SELDOM = 4000;  // milliseconds
const $ = (id) => document.getElementById(id);

export class Loader {
  // `page.busy()`: a request is running; `page.take(list, id)` takes what the server lists, and the model that has arrived;
  // `page.problem(error)` shows one.
  constructor(page) {
    Object.assign(this, { page, entries: [], waiting: null, timer: 0 });
    for (const id of ["load", "choose"]) $(id).addEventListener("click", () => this.choose());
  }

  // What the server lists, at the start and whenever it is asked again.
  show({ data, available }) {
    this.entries = available;
    const coming = available.find((entry) => entry.state === "downloading" || entry.state === "loading");
    if (coming) this.waiting = coming.id;
    $("none").hidden = data.length > 0;
    $("load").hidden = !available.length || !data.length;
    $("load").disabled = $("choose").hidden = Boolean(coming);
    const how = coming && (coming.state === "loading" ? `Loading ${coming.name} …` : `Downloading ${coming.name} …`);
    const far = coming?.downloaded ? ` ${size(coming.downloaded)}` : "";
    $("progress").textContent = how ? how + far : "";
    $("none").firstElementChild.textContent = how ? how + far : "No model is loaded yet.";
    if (how && !this.page.busy() && $("status").textContent !== how) $("status").textContent = how;  // read aloud once
    clearTimeout(this.timer);
    if (coming || !data.length) this.timer = setTimeout(() => this.look(), coming ? OFTEN : SELDOM);
  }

  async look() {
    let list;
    try { list = await api.models(); } catch (error) { this.page.problem(error); this.timer = setTimeout(() => this.look(), SELDOM); return; }
    const { waiting } = this, failed = list.available.find((entry) => entry.id === waiting && entry.state === "failed");
    const arrived = list.data.find((model) => model.id === waiting);
    if (this.page.busy() && arrived) { this.timer = setTimeout(() => this.look(), OFTEN); return; }
    if (failed || arrived) { this.waiting = null; $("status").textContent = arrived ? `${waiting} is loaded` : ""; }
    this.show(list);
    if (arrived || (list.data.length && !$("model").value)) this.page.take(list, arrived?.id);
    if (failed) this.page.problem(new Error(`${failed.name} was not loaded: ${failed.error}`));
  }

  async choose() {
    try { this.show(await api.models()); } catch (error) { this.page.problem(error); return; }  // runs may have come since
    if (this.waiting) return;
    showModels(this.entries, async (entry) => {
      this.page.problem(null);
      try {
        await api.load(entry.id);
        this.waiting = entry.id;
        await this.look();
      } catch (error) { this.page.problem(error); }
    });
  }
}
