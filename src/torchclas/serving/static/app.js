// The page of `torchclas serve`: two tabs.
import { startExplore } from "./explore.js";
import { startFrame } from "./frame.js";
import { hindrance } from "./hindrance.js";
import { ask, ServiceError } from "./service.js";
import { startTry } from "./try.js";

const TABS = ["try", "explore"];
const byId = (id) => document.getElementById(id);
const built = new Set(); // tabs that are there, or on their way
const active = (name) => () => !byId(`panel-${name}`).hidden;

const START = {
  try: (place) => startTry(place, { active: active("try") }),
  explore: async (place) => startExplore(place, await (await ask("/v1/zoo")).json()),
};

/** Build a tab when it is first looked at, and again where that failed. */
async function start(name) {
  if (built.has(name)) return;
  built.add(name);
  const place = byId(`panel-${name}`);
  try {
    await START[name](place);
  } catch (error) {
    if (!(error instanceof ServiceError)) throw error;
    built.delete(name);
    place.replaceChildren(hindrance(error, () => start(name)));
  }
}

function show(name) {
  for (const tab of TABS) {
    byId(`panel-${tab}`).hidden = tab !== name;
    const handle = byId(`tab-${tab}`);
    handle.setAttribute("aria-selected", String(tab === name));
    handle.tabIndex = tab === name ? 0 : -1;
  }
  start(name);
}

/** Show a tab that was asked for here; to follow a link to it would take the focus away. */
function go(name) {
  history.pushState(null, "", `#${name}`);
  show(name);
}

const asked = () => (location.hash.startsWith("#explore") ? "explore" : "try");
for (const [place, name] of TABS.entries()) {
  const handle = byId(`tab-${name}`);
  handle.addEventListener("click", () => go(name));
  handle.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const next = TABS[(place + step + TABS.length) % TABS.length];
    byId(`tab-${next}`).focus();
    go(next);
  });
}
// The link to skip to has a fragment as well; it is none of the tabs.
addEventListener("popstate", () => location.hash === "#main" || show(asked()));
startFrame(byId("settings"));
show(asked());
