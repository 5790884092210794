// Many pictures at once: a sheet with a filter, and a file for spreadsheets.
import { save, toCsv } from "./csv.js";
import { button, el, say } from "./dom.js";
import { percent, whenLanguageChanges } from "./text.js";

const PAGE = 120; // pictures that are drawn before somebody asks for more
const UNSURE = 0.5;
const SHOWN = ["all", "errors", "unsure", "differ"];

/** The sheet: `using` are the models, `open` shows one picture alone, `stop` ends the work. */
export function createSheet({ using, open, stop }) {
  let items = [];
  let cards = new Map();
  let limit = PAGE;
  let drawing = 0;

  const title = el("h2");
  const progress = el("p", { className: "faint", role: "status" });
  const meter = el("progress", { label: "sheet.meter", max: 1, value: 0 });
  const text = el("input", { type: "search", id: "sheet-filter", placeholder: "sheet.filter", label: "sheet.filter" });
  const kind = el("select", { label: "sheet.show" }, SHOWN.map((name) => el("option", { value: name, t: `sheet.${name}` })));
  const stopping = button("plain", "sheet.stop", stop);
  const none = el("p", { className: "faint", t: "sheet.none", hidden: true });
  const grid = el("ul", { className: "grid" });
  const more = button("plain", "sheet.more", () => ((limit += PAGE), draw()));
  const tools = el("div", { className: "tools" }, text, kind, button("plain", "sheet.csv", write), stopping);
  const node = el("div", { className: "sheet" }, title, progress, meter, tools, none, grid, more);
  text.addEventListener("input", restart);
  kind.addEventListener("change", restart);
  whenLanguageChanges(() => items.length && draw());

  function restart() {
    limit = PAGE;
    draw();
  }

  const best = (item, model) => item.results.get(model.name)?.classes?.[0];
  const failed = (item) => using().some((model) => item.results.get(model.name)?.error);
  const isDone = (item) => using().every((model) => item.results.has(model.name));

  function matches(item) {
    const words = text.value.trim().toLowerCase();
    const tops = using().map((model) => best(item, model)).filter(Boolean);
    if (words) {
      const known = [item.name, ...tops.flatMap((top) => [top.id, ...Object.values(top.names)])];
      if (!known.some((name) => name.toLowerCase().includes(words))) return false;
    }
    switch (kind.value) {
      case "errors": return failed(item);
      case "unsure": return tops.some((top) => top.score < UNSURE);
      case "differ": return new Set(tops.map((top) => top.id)).size > 1;
      default: return true;
    }
  }

  function draw() {
    cancelAnimationFrame(drawing);
    if (!items.length) return;
    drawing = requestAnimationFrame(() => {
      const found = items.filter(matches);
      grid.replaceChildren(...found.slice(0, limit).map((item) => cards.get(item) ?? card(item)));
      none.hidden = found.length > 0;
      more.hidden = found.length <= limit;
      const done = items.filter(isDone);
      meter.value = done.length / items.length;
      if (done.length < items.length) {
        say(progress, "sheet.progress", { done: done.length, count: items.length });
      } else {
        const errors = done.filter(failed).length;
        say(progress, "sheet.finished", { ok: done.length - errors, errors });
      }
    });
  }

  function card(item) {
    const picture = el("img", { src: item.url, alt: "", loading: "lazy", decoding: "async" });
    picture.addEventListener("error", () => picture.replaceWith(el("span", { className: "lacking" })));
    const press = el("button", { type: "button", className: "tile", on: { click: () => open(item) } });
    press.append(
      el("span", { className: "thumb" }, picture),
      el("span", { className: "file", textContent: item.name.split("/").at(-1), title: item.name }),
      ...using().map((model) => line(item, model)),
    );
    const node = el("li", {}, press);
    cards.set(item, node);
    return node;
  }

  function line(item, model) {
    const result = item.results.get(model.name);
    const top = best(item, model);
    const row = el("span", { className: "top" });
    if (using().length > 1) row.append(el("span", { className: "faint model", textContent: model.name }));
    if (!result) row.append(el("span", { className: "faint", t: "sheet.waiting" }));
    else if (result.error) row.append(el("span", { className: "bad", t: result.error.key }));
    else if (!top) row.append(el("span", { className: "faint", t: "try.none" }));
    else row.append(el("span", { className: "first", names: top.names }), el("span", { textContent: percent(top.score) }));
    return row;
  }

  function write() {
    const places = [1, 2, 3, 4, 5];
    const header = ["source", "model", "status", "engine", "ms"];
    const columns = places.flatMap((n) => [`class_id_${n}`, `label_en_${n}`, `label_zh_${n}`, `score_${n}`]);
    const rows = items.filter(matches).flatMap((item) =>
      using().map((model) => {
        const result = item.results.get(model.name);
        const start = [item.name, model.name];
        const none = Array.from({ length: columns.length + 2 });
        if (!result) return [...start, "waiting", ...none, null];
        if (result.error) return [...start, "error", ...none, [result.error.message, result.error.hint].join(": ")];
        const classes = places.flatMap((n) => {
          const found = result.classes[n - 1];
          return found ? [found.id, found.names.en, found.names.zh, found.score] : [null, null, null, null];
        });
        return [...start, "ok", result.engine, Math.round(result.ms * 1000) / 1000, ...classes, null];
      }),
    );
    save("torchclas.csv", toCsv([[...header, ...columns, "error"], ...rows]));
  }

  return {
    node,
    /** Begin with other pictures. */
    begin(given) {
      items = given;
      cards = new Map();
      limit = PAGE;
      text.value = "";
      kind.value = "all";
      say(title, "sheet.title", { count: items.length });
      draw();
    },
    /** More is known of a picture. */
    changed(item) {
      cards.delete(item);
      draw();
    },
    /** The models are others. */
    refresh() {
      cards = new Map();
      draw();
    },
    working(now) {
      stopping.hidden = !now;
      meter.hidden = !now;
    },
    focus: (item) => cards.get(item)?.firstElementChild?.focus(),
  };
}
