// Runs the model beside the page, so that the page never stands still.
import { decode, Unreadable } from "./decode.js";
import { fitted, normalized } from "./preprocess.js";

const THREADS = 4; // more bring little for one picture
const TOLERANCE = 1e-4; // of the largest logit, as for every exported file

let site = null; // site.json
let ort = null;
let session = null;

const tell = (what, done = 0, total = 0) => postMessage({ progress: { what, done, total } });

/** A file whose content is known; `news` is what the page calls it while it loads. */
async function fetched({ address, integrity, bytes }, news) {
  const answer = await fetch(address, { integrity });
  if (!answer.ok) throw new Error(`${address}: ${answer.status}`);
  const content = new Uint8Array(bytes);
  let done = 0;
  const reader = answer.body.getReader();
  for (;;) {
    const { done: ended, value } = await reader.read();
    if (ended) break;
    if (done + value.length > bytes) throw new Error(`${address}: longer than ${bytes} bytes`);
    content.set(value, done);
    done += value.length;
    tell(news, done, bytes);
  }
  if (done < bytes) throw new Error(`${address}: shorter than ${bytes} bytes`);
  return content;
}

async function open() {
  site = await (await fetch("site.json")).json();
  const classes = await (await fetch("labels.json")).json();
  const model = await fetched(site.model, "model");
  const expected = await expectedAnswer();
  let problem = null;
  for (const kind of await kinds()) {
    try {
      const engine = await start(kind, model);
      tell("checking");
      const apart = await compare(expected);
      if (apart <= TOLERANCE) return described(engine, classes);
      problem = { key: "open.differs", message: `${engine}: logits ${apart.toExponential(1)} of the largest apart` };
    } catch (error) {
      problem = { key: "open.failed", message: error.message };
    }
    await session?.release();
    session = null;
  }
  throw problem;
}

const described = (engine, classes) => ({ name: site.name, engine, classes, preset: site.preset });

/** Ways to run the model here, the fastest first; a WebGPU that is computed by the processor is the slowest of all. */
async function kinds() {
  const adapter = await navigator.gpu?.requestAdapter().catch(() => null);
  return adapter && !adapter.info?.isFallbackAdapter ? ["webgpu", "wasm"] : ["wasm"];
}

/** Open the model in one of the ways; returns what that is called. */
async function start(kind, model) {
  const { script, wasm } = site.runtime[kind];
  ort = await import(await source(script));
  const threads = self.crossOriginIsolated && !script.integrity ? Math.min(THREADS, navigator.hardwareConcurrency) : 1;
  ort.env.logLevel = "error";
  ort.env.wasm.wasmBinary = await fetched(wasm, "runtime");
  ort.env.wasm.numThreads = threads;
  session = await ort.InferenceSession.create(model, {
    executionProviders: [kind],
    freeDimensionOverrides: { batch: 1 },
    logSeverityLevel: 3,
  });
  if (kind === "webgpu") return "WebGPU";
  return threads > 1 ? `WebAssembly × ${threads}` : "WebAssembly";
}

/** Where to import a script from; what another host sends is compared with what it should be. */
async function source({ address, integrity }) {
  if (!integrity) return new URL(address, location.href).href;
  const answer = await fetch(address, { integrity });
  if (!answer.ok) throw new Error(`${address}: ${answer.status}`);
  return URL.createObjectURL(new Blob([await answer.arrayBuffer()], { type: "text/javascript" }));
}

/** The picture whose logits were computed when the site was written, prepared, and these logits. */
async function expectedAnswer() {
  const picture = await (await fetch(site.check.address)).blob();
  return { ...prepared(await decode(picture, site.max_pixels)), logits: site.check.logits };
}

async function compare({ tensor, logits }) {
  const got = await run(tensor);
  const largest = Math.max(...logits.map(Math.abs)) || 1;
  return Math.max(...logits.map((logit, n) => Math.abs(got[n] - logit))) / largest;
}

function prepared(pixels) {
  const image = fitted(pixels, site);
  return { image, tensor: normalized(image, site) };
}

async function run(values) {
  const [height, width] = site.preset.size;
  const images = new ort.Tensor("float32", values, [1, site.channels, height, width]);
  const { logits } = await session.run({ images });
  return logits.data;
}

async function classify({ source, top }) {
  const start = performance.now();
  const { tensor } = prepared(await decode(source, site.max_pixels));
  const ready = performance.now();
  const logits = await run(tensor);
  const end = performance.now();
  return { scores: best(logits, top), ms: end - ready, total: end - start };
}

/** The likeliest classes; of a model that gives any number of them, all above their thresholds. */
function best(logits, top) {
  const several = site.activation === "sigmoid";
  const scores = several ? Array.from(logits, sigmoid) : softmax(logits);
  const places = scores.map((_, place) => place).sort((a, b) => scores[b] - scores[a] || a - b);
  const chosen = several ? places.filter((place) => scores[place] >= site.thresholds[place]) : places.slice(0, top);
  return chosen.map((place) => ({ place, score: scores[place] }));
}

const sigmoid = (x) => 1 / (1 + Math.exp(-x));

function softmax(logits) {
  const largest = logits.reduce((a, b) => Math.max(a, b));
  const powers = Array.from(logits, (logit) => Math.exp(logit - largest));
  const sum = powers.reduce((a, b) => a + b);
  return powers.map((power) => power / sum);
}

async function view({ source }) {
  const { data, width, height } = fitted(await decode(source, site.max_pixels), site);
  const canvas = new OffscreenCanvas(width, height);
  canvas.getContext("2d").putImageData(new ImageData(data, width, height), 0, 0);
  return canvas.convertToBlob({ type: "image/png" });
}

const ANSWERS = { open, classify, view };
let last = Promise.resolve();

// One after the other: a session runs one picture at a time, and each may take much memory.
addEventListener("message", ({ data }) => {
  last = last.then(async () => {
    try {
      postMessage({ id: data.id, answer: await ANSWERS[data.what](data) });
    } catch (error) {
      const key = error.key ?? (data.what === "open" ? "open.failed" : "kind.failed");
      if (!(error instanceof Unreadable) && !error.key) console.error(error);
      postMessage({ id: data.id, problem: { key, message: error.message } });
    }
  });
});
