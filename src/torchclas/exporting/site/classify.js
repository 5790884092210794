// What this device says of pictures: stands in the place of the service's module of this name.
import { el } from "./dom.js";

const TOP = 5;
const WATCHED = 3; // classes that are shown of what a camera sees

/** What stood in the way of an answer; `key` is one of text.js. */
class Problem extends Error {
  constructor({ key, message }) {
    super(message);
    this.key = key;
    this.hint = "";
  }

  /** It, for people. */
  node() {
    const detail = this.message ? el("span", { className: "faint", lang: "en", textContent: this.message }) : null;
    return el("p", { className: "why" }, el("strong", { t: this.key }), detail);
  }
}

let worker = null;
let model = null;
let count = 0;
const waiting = new Map();
let progress = () => {};

/** Ask the worker; throws Problem. */
function ask(request, transfer = []) {
  return new Promise((done, stop) => {
    waiting.set(++count, { done, stop });
    worker.postMessage({ ...request, id: count }, transfer);
  });
}

function hear({ data: { id, progress: news, problem, answer } }) {
  if (news) return progress(news);
  const { done, stop } = waiting.get(id);
  waiting.delete(id);
  if (problem) stop(new Problem(problem));
  else done(answer);
}

/** Open the model; `tell` hears what is loaded. Throws Problem. */
export async function opened(tell) {
  progress = tell;
  worker = new Worker("worker.js", { type: "module" });
  worker.addEventListener("message", hear);
  worker.addEventListener("error", (event) => {
    event.preventDefault();
    for (const { stop } of waiting.values()) stop(new Problem({ key: "open.failed", message: event.message ?? "" }));
    waiting.clear();
  });
  model = await ask({ what: "open" });
}

/** The models that are open: one. */
export const openModels = async () => [model];

async function classify(file) {
  try {
    const { scores, ...timing } = await ask({ what: "classify", source: file, top: TOP });
    return { classes: scores.map(named), engine: model.engine, ...timing };
  } catch (error) {
    if (error instanceof Problem) return { error };
    throw error;
  }
}

const named = ({ place, score }) => ({ ...model.classes[place], score });

/** Classify every picture, one after the other; `done(item)` follows each answer. */
export async function classifyAll(items, models, signal, done) {
  for (const item of items.filter((one) => !one.results.has(model.name))) {
    if (signal.aborted || !models.length) return;
    item.results.set(model.name, await classify(item.file));
    done(item);
  }
}

/** Where a model sees a class: nobody knows of a graph without gradients. */
export const where = null;

/** What the network saw of a picture, as the address of a PNG. */
export async function seen(item) {
  if (!item.seen.has(model.name)) {
    item.seen.set(model.name, URL.createObjectURL(await ask({ what: "view", source: item.file })));
  }
  return item.seen.get(model.name);
}

/** Classify what a camera sees for as long as `lasts()`; `show(classes)` follows each answer. */
export async function watch(video, lasts, show) {
  while (lasts()) {
    await new Promise(requestAnimationFrame);
    const frame = await createImageBitmap(video).catch(() => null); // before the first is shown, Chromium has none
    if (!frame) continue;
    const { scores } = await ask({ what: "classify", source: frame, top: WATCHED }, [frame]);
    if (lasts()) show(scores.map(named));
  }
}
