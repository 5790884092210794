// The page of `torchclas serve`: two tabs.
import { startExplore } from "./explore.js";
import { startFrame } from "./frame.js";
import { ask } from "./service.js";
import { startTry } from "./try.js";
import { button, el } from "./dom.js";

const TABS = ["try", "explore"];
const byId = (id) => document.getElementById(id);
let explored = false;

async function show(name, { focus = false } = {}) {
  for (const tab of TABS) {
    byId(tab).hidden = tab !== name;
    const handle = byId(`tab-${tab}`);
    handle.setAttribute("aria-selected", String(tab === name));
    handle.tabIndex = tab === name ? 0 : -1;
  }
  if (focus) byId(`tab-${name}`).focus();
  if (name === "explore") await explore();
}

/** Fetch the zoo when it is first looked at, and again where that failed. */
async function explore() {
  if (explored) return;
  explored = true;
  const place = byId("explore");
  try {
    startExplore(place, await (await ask("/v1/zoo")).json());
  } catch (error) {
    explored = false;
    const again = button("plain", "try.again", explore);
    place.replaceChildren(el("div", { className: "problem" }, el("p", { t: "zoo.failed" }), error.node(), again));
  }
}

const asked = () => (location.hash.startsWith("#explore") ? "explore" : "try");
for (const [place, name] of TABS.entries()) {
  const handle = byId(`tab-${name}`);
  handle.addEventListener("click", () => (location.hash = name));
  handle.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const next = TABS[(place + step + TABS.length) % TABS.length];
    byId(`tab-${next}`).focus();
    location.hash = next;
  });
}
// The link to skip to has a fragment as well; it is none of the tabs.
addEventListener("hashchange", () => location.hash === "#main" || show(asked()));
startFrame(byId("settings"));
show(asked());
startTry(byId("try"), { active: () => !byId("try").hidden });
