// The page of `torchclas serve`: two tabs.
import { startExplore } from "./explore.js";
import { startFrame } from "./frame.js";
import { ask } from "./service.js";
import { startTry } from "./try.js";
import { button, el } from "./dom.js";

const TABS = ["try", "explore"];
const byId = (id) => document.getElementById(id);
let explored = false;

async function show(name) {
  for (const tab of TABS) {
    byId(`panel-${tab}`).hidden = tab !== name;
    const handle = byId(`tab-${tab}`);
    handle.setAttribute("aria-selected", String(tab === name));
    handle.tabIndex = tab === name ? 0 : -1;
  }
  if (name === "explore") await explore();
}

/** Fetch the zoo when it is first looked at, and again where that failed. */
async function explore() {
  if (explored) return;
  explored = true;
  const place = byId("panel-explore");
  try {
    startExplore(place, await (await ask("/v1/zoo")).json());
  } catch (error) {
    explored = false;
    const again = button("plain", "try.again", explore);
    place.replaceChildren(el("div", { className: "problem" }, el("p", { t: "zoo.failed" }), error.node(), again));
  }
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
startTry(byId("panel-try"), { active: () => !byId("panel-try").hidden });
