// What the service says of pictures, a result for each picture and model.
import { ask, ServiceError } from "./service.js";

const AT_ONCE = 4; // requests; the service batches what comes together
const TOP = 5;

/** The models that are open. */
export const openModels = async () => (await (await ask("/v1/models")).json()).models;

const classNames = new Map();

/** The names of a model's classes in each of its languages: class id → {en, zh}. */
function namesOf(model) {
  const key = `${model.name} ${model.version}`;
  if (!classNames.has(key)) classNames.set(key, fetchNames(model).catch(() => (classNames.delete(key), new Map())));
  return classNames.get(key);
}

async function fetchNames(model) {
  const found = new Map();
  for (const lang of model.languages) {
    const answer = await ask(`/v1/models/${encodeURIComponent(model.name)}/classes?lang=${lang}`);
    for (const row of (await answer.json()).classes) {
      found.set(row.class_id, { ...found.get(row.class_id), [lang]: row.label });
    }
  }
  return found;
}

/** Classify one picture: {classes, engine, ms, total}, or {error}. */
async function classify(file, model, signal) {
  const start = performance.now();
  try {
    const query = new URLSearchParams({ model: model.name, top_k: TOP });
    const answer = await (await ask(`/v1/classify?${query}`, { body: file, signal })).json();
    const total = performance.now() - start;
    const names = await namesOf(model);
    const classes = answer.predictions[0].classes.map((row) => ({
      id: row.class_id,
      names: { en: row.label, ...names.get(row.class_id) },
      score: row.score,
    }));
    return { classes, engine: answer.engine, ms: answer.seconds * 1000, total };
  } catch (error) {
    if (error instanceof ServiceError) return { error };
    throw error;
  }
}

/** Classify every picture by every model, some at once; `done(item)` follows each answer. */
export async function classifyAll(items, models, signal, done) {
  const due = items.flatMap((item) => models.filter((model) => !item.results.has(model.name)).map((m) => [item, m]));
  const work = async () => {
    for (let next = due.shift(); next && !signal.aborted; next = due.shift()) {
      const [item, model] = next;
      item.results.set(model.name, await classify(item.file, model, signal));
      done(item);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
}

/** Where a model sees a class, as the address of a PNG of the picture below its heat map. Throws ServiceError. */
export async function where(item, model, classId) {
  const key = `${model.name} ${classId}`;
  if (!item.seen.has(key)) {
    const query = new URLSearchParams({ model: model.name, class: classId });
    const answer = await ask(`/v1/explain?${query}`, { body: item.file });
    item.seen.set(key, URL.createObjectURL(await answer.blob()));
  }
  return item.seen.get(key);
}

/** What the network saw of a picture, as the address of a PNG; null where it takes pictures as they are. */
export async function seen(item, model) {
  if (!model.preset) return null;
  if (!item.seen.has(model.name)) {
    const body = item.file;
    const answer = await ask(`/v1/view?${new URLSearchParams({ model: model.name })}`, { body });
    item.seen.set(model.name, URL.createObjectURL(await answer.blob()));
  }
  return item.seen.get(model.name);
}
