// "Try it": pictures in, their classes out.
import { classifyAll, openModels, seen, where } from "./classify.js";
import { button, el, say } from "./dom.js";
import { camera, ofDrop, ofFolder, release, toItem } from "./pictures.js";
import { createSheet } from "./sheet.js";
import { language, percent, t } from "./text.js";

const MANY = 3; // models that all answer at first; of more, the first

const milliseconds = (ms) => (ms < 9.95 ? ms.toFixed(1) : Math.round(ms).toLocaleString(language()));

/**
 * Build the part in `place`; `active` tells whether it is the one that is shown. `watch(video, lasts, show)`, where the
 * models are near enough for that, shows the classes of what a camera sees. Throws ServiceError.
 */
export async function startTry(place, { active, watch = null }) {
  build(place, await openModels(), active, watch);
}

function build(place, models, active, watch) {
  const chosen = new Set(models.slice(0, models.length > MANY ? 1 : MANY).map((model) => model.name));
  const using = () => models.filter((model) => chosen.has(model.name));
  let items = [];
  let opened = null; // the picture that is shown alone
  let running = new AbortController();

  const status = el("p", { className: "quietly", role: "status" });
  const problem = el("p", { className: "why", role: "alert" });
  const stage = el("div", { className: "stage" });
  const drop = dropZone();
  const sheet = createSheet({ using, open: (item) => show(item), stop: () => running.abort() });

  function dropZone() {
    const files = el("input", { type: "file", multiple: true, hidden: true, id: "files" });
    const folder = el("input", { type: "file", webkitdirectory: true, hidden: true, id: "folder" });
    files.addEventListener("change", () => (take([...files.files].map((file) => toItem(file))), (files.value = "")));
    folder.addEventListener("change", () => (take(ofFolder(folder.files)), (folder.value = "")));
    const zone = el(
      "div",
      { className: "drop" },
      el("p", { className: "invitation", t: "try.drop" }),
      el(
        "div",
        { className: "row" },
        button("primary", "try.choose", () => files.click()),
        button("plain", "try.folder", () => folder.click()),
        camera((blob) => take([toItem(blob, `${t("try.photo")}.jpg`)]), watch && watched),
      ),
      files,
      folder,
    );
    let inside = 0; // children enter and leave as well
    const over = (change) => zone.classList.toggle("over", (inside += change) > 0);
    document.addEventListener("dragenter", (event) => active() && hasFiles(event) && over(1));
    document.addEventListener("dragleave", (event) => active() && hasFiles(event) && over(-1));
    document.addEventListener("dragover", (event) => hasFiles(event) && event.preventDefault());
    document.addEventListener("drop", async (event) => {
      if (!hasFiles(event)) return;
      event.preventDefault();
      over(-inside);
      if (active()) await take(await ofDrop(event.dataTransfer));
    });
    document.addEventListener("paste", (event) => {
      const pasted = [...(event.clipboardData?.files ?? [])];
      if (!active() || !pasted.length) return;
      event.preventDefault();
      // A picture from the clipboard has a name that says nothing.
      take(pasted.map((file) => toItem(file, pasted.length > 1 ? file.name : t("try.pasted"))));
    });
    return zone;
  }

  function watched(video, beside, lasts) {
    const bars = el("ol", { className: "bars" });
    beside.replaceChildren(bars);
    watch(video, lasts, (classes) => bars.replaceChildren(...classes.map((found) => bar(found))));
  }

  async function take(given) {
    problem.textContent = "";
    if (!given.length) return say(problem, "try.empty");
    running.abort();
    release(items);
    items = given;
    opened = null;
    place.classList.add("busy-with-pictures");
    sheet.begin(items);
    await run();
  }

  /** Ask for what is not known yet. */
  async function run() {
    running.abort();
    const mine = (running = new AbortController());
    show(opened);
    if (!items.length) return;
    if (!using().length) return say(problem, "try.models.pick");
    problem.textContent = "";
    if (items.length === 1) say(status, "try.working", { name: items[0].name });
    sheet.working(true);
    try {
      await classifyAll(items, using(), mine.signal, (item) => {
        sheet.changed(item);
        if (item === opened || items.length === 1) show(item);
      });
      announce();
    } catch (error) {
      if (error.name !== "AbortError") throw error;
    }
    if (mine === running) sheet.working(false);
  }

  function announce() {
    if (items.length !== 1) return;
    const [{ name, results }] = items;
    const best = using().map((model) => results.get(model.name)).find((result) => result?.classes?.length);
    if (!best) return say(status, "try.failed", { name });
    say(status, "try.done", { name, label: best.classes[0].names, score: percent(best.classes[0].score) });
  }

  /** Show one picture, or all of them. */
  function show(item) {
    opened = item;
    const shown = items.length === 1 ? items[0] : item;
    if (shown) stage.replaceChildren(...detail(shown));
    else if (items.length) stage.replaceChildren(sheet.node);
    else stage.replaceChildren();
  }

  function detail(item) {
    const back = () => {
      show(null);
      sheet.focus(item);
    };
    const header = items.length > 1 ? button("plain back", "try.back", back) : null;
    const picture = el("img", { src: item.url, alt: "", className: "picture" });
    const caption = el("figcaption", { className: "file", textContent: item.name });
    picture.addEventListener("error", () => {
      picture.replaceWith(el("p", { className: "picture lacking", t: "try.nopreview" }));
    });
    const cards = using().map((model) => card(item, model));
    return [
      ...(header ? [header] : []),
      el(
        "div",
        { className: "result" },
        el("figure", { className: "given" }, picture, caption),
        el("div", { className: "answers" }, cards),
      ),
    ];
  }

  function card(item, model) {
    const result = item.results.get(model.name);
    const heading = el("h2", { textContent: model.name });
    if (!result) return el("article", { className: "answer waiting" }, heading, el("div", { className: "bars ghost" }));
    if (result.error) return el("article", { className: "answer" }, heading, result.error.node());
    const took = el("p", { className: "faint took" });
    took.append(
      el("span", { t: ["try.time", { ms: milliseconds(result.ms) }] }),
      el("span", { textContent: result.engine }),
      el("span", { t: ["try.total", { ms: milliseconds(result.total) }] }),
    );
    if (!result.classes.length) {
      const none = el("p", { className: "faint", t: "try.none" });
      return el("article", { className: "answer" }, heading, none, view(item, model), took);
    }
    const heat = where && model.explains ? heatMap(item, model) : null;
    const bars = el("ol", { className: "bars" }, result.classes.map((found) => bar(found, heat)));
    return el("article", { className: "answer" }, heading, bars, heat?.node, view(item, model), took);
  }

  /** Where the model sees a class: `node`, and `toggle(class, button)`, which shows it or hides it again. */
  function heatMap(item, model) {
    const node = el("div", { className: "where" }, el("p", { className: "faint", t: "try.where.hint" }));
    const hint = node.firstChild;
    let pressed = null;
    const press = (next) => {
      pressed?.setAttribute("aria-pressed", "false");
      next?.setAttribute("aria-pressed", "true");
      pressed = next;
    };
    async function toggle({ id, names }, control) {
      if (pressed === control) {
        press(null);
        return node.replaceChildren(hint);
      }
      press(control);
      const caption = el("figcaption", { className: "faint", t: ["try.where.shown", { label: names }] });
      const picture = el("img", { className: "ghost", alt: "" });
      node.replaceChildren(el("figure", { attributes: { "aria-busy": "true" } }, picture, caption));
      const figure = node.firstChild;
      try {
        const address = await where(item, model, id);
        if (figure.isConnected) Object.assign(picture, { src: address, className: "" });
        figure.removeAttribute("aria-busy");
      } catch (error) {
        if (figure.isConnected) node.replaceChildren(error.node());
      }
    }
    return { node, toggle };
  }

  function bar({ id, names, score }, heat = null) {
    const other = Object.values(names).length > 1 && names.zh && names.zh !== names.en;
    const second = other ? el("span", { className: "faint second", names: { en: names.zh, zh: names.en } }) : null;
    const length = el("span", { className: "length" });
    length.style.width = `${Math.max(score * 100, 0.4)}%`;
    const first = el("span", { className: "first", names });
    const control = heat && el("button", { type: "button", className: "shows", attributes: { "aria-pressed": "false" } }, first);
    control?.addEventListener("click", () => heat.toggle({ id, names }, control));
    return el(
      "li",
      {},
      el("span", { className: "label" }, control ?? first, second),
      el("span", { className: "score", textContent: percent(score) }),
      el("span", { className: "bar-line", attributes: { "aria-hidden": "true" } }, length),
    );
  }

  function view(item, model) {
    if (!model.preset) return null;
    const [height, width] = model.preset.size;
    const picture = el("img", { alt: "", width, height });
    seen(item, model).then(
      (address) => (picture.src = address),
      () => figure.remove(),
    );
    const size = `${width} × ${height}`;
    const caption = el("figcaption", { className: "faint", t: ["try.seen.size", { size }] });
    const figure = el("figure", { className: "seen" }, picture, caption);
    return figure;
  }

  const choice = el(
    "fieldset",
    { className: "models" },
    el("legend", { t: "try.models" }),
    models.map((model) => {
      const box = el("input", { type: "checkbox", checked: chosen.has(model.name), value: model.name });
      box.addEventListener("change", () => {
        if (box.checked) chosen.add(model.name);
        else chosen.delete(model.name);
        sheet.refresh();
        run();
      });
      const engine = el("span", { className: "faint", textContent: `${model.engine} ${model.precision}` });
      return el("label", { className: "chip" }, box, el("span", { textContent: model.name }), engine);
    }),
  );
  place.replaceChildren(
    el("div", { className: "intro" }, el("h1", { t: "try.title" }), el("p", { className: "lead", t: "try.lead" })),
    ...(models.length ? [] : [el("p", { className: "why", t: "try.models.none" })]),
    ...(models.length > 1 ? [choice] : []),
    ...(models.length ? [drop, problem, status, stage] : []),
  );
}

const hasFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
