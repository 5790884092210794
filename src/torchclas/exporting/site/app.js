// The page of `torchclas export --to web`: the service's part to try pictures, answered by this device.
import { opened, watch } from "./classify.js";
import { button, el, say } from "./dom.js";
import { startFrame } from "./frame.js";
import { reword } from "./text.js";
import { startTry } from "./try.js";
import { WORDS } from "./words.js";

const PATIENCE = 5000; // ms for the browser to keep the page for later; without that it goes on as well

/** Whether what this page loads is kept, so that it works without a network from then on. */
async function kept() {
  if (!navigator.serviceWorker) return false;
  const controlled = new Promise((done) => {
    if (navigator.serviceWorker.controller) done(true);
    navigator.serviceWorker.addEventListener("controllerchange", () => done(true), { once: true });
  });
  try {
    await navigator.serviceWorker.register("offline.js");
  } catch {
    return false;
  }
  return Promise.race([controlled, new Promise((done) => setTimeout(done, PATIENCE, false))]);
}

const megabytes = (bytes) => Math.round(bytes / 1e5) / 10;

async function start(place) {
  const title = el("h1");
  const status = el("p", { role: "status" });
  const meter = el("progress", { max: 1, value: 0, attributes: { "aria-hidden": "true" } });
  const promise = el("p", { className: "faint" });
  place.replaceChildren(el("div", { className: "opening" }, title, meter, status, promise));
  say(title, "open.title", { name: document.title });
  say(promise, (await kept()) ? "open.once" : "open.online");
  try {
    await opened(({ what, done, total }) => {
      meter.hidden = !total;
      if (total) meter.value = done / total;
      say(status, `open.${what}`, total ? { done: megabytes(done), total: megabytes(total) } : undefined);
    });
  } catch (error) {
    const detail = el("span", { className: "faint", lang: "en", textContent: error.message });
    const why = el("p", { className: "why", role: "alert" }, el("strong", { t: error.key ?? "open.failed" }), detail);
    const again = button("plain", "try.again", () => location.reload());
    place.replaceChildren(el("div", { className: "problem" }, title, why, again));
    return;
  }
  await startTry(place, { active: () => true, watch });
}

reword(WORDS);
startFrame(document.getElementById("settings"));
start(document.getElementById("panel-try"));
