// All that is known of one model, and the commands that use it.
import { breakable, button, el, say } from "./dom.js";

/** Commands and code for a model; `known` is a key of text.js. */
function commands(model) {
  const { name } = model;
  if (model.quantized_from && !model.has_weights) {
    return [["card.quantize", `torchclas quantize ${model.quantized_from} --calibration photos/`]];
  }
  if (!model.has_weights) return [["card.train", `torchclas train photos/ -m ${name} -o run/`]];
  return [
    ["card.predict", `torchclas predict photos/ -m ${name}`],
    ["card.serve", `torchclas serve ${name}`],
    ["card.train", `torchclas train photos/ -m ${name} -o run/`],
    ["card.python", `torchclas.create_model("${name}", pretrained=True)`],
  ];
}

async function copy(text, from) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Without https there is no clipboard: the text is selected, for the visitor to copy.
    const range = document.createRange();
    range.selectNodeContents(from.previousElementSibling);
    getSelection().removeAllRanges();
    getSelection().addRange(range);
    return;
  }
  say(from, "card.copied");
  setTimeout(() => say(from, "card.copy"), 2000);
}

function command([key, text]) {
  const press = button("plain", "card.copy", () => copy(text, press), { attributes: { "aria-describedby": `about-${key}` } });
  return el(
    "div",
    { className: "command" },
    el("h3", { id: `about-${key}`, t: key }),
    el("div", {}, el("code", { textContent: text }), press),
  );
}

/** Show the card of `model`; `zoo` is what it comes from, `closed` is called at the end. */
export function openCard(model, zoo, closed) {
  const series = zoo.series.find((one) => one.id === model.series);
  const { preset } = model;
  const [height, width] = preset.size;
  const figures = [
    ["Top-1", model.top1, " %"],
    ["Top-5", model.top5, " %"],
    ["GFLOPs", model.gflops, ""],
    [null, model.params_m, ""],
  ].filter(([, value]) => value !== null);
  const facts = el("dl", { className: "facts" });
  const fact = (key, ...contents) => facts.append(el("dt", { t: key }), el("dd", {}, contents));
  const line = (textContent) => el("p", { textContent });

  if (model.arch !== model.name) fact("card.arch", line(model.arch));
  const latency = zoo.devices
    .filter((device) => device.id in model.latency)
    .map((device) => {
      const each = model.latency[device.id].map((ms, n) => `${ms} ms (${device.columns[n]})`);
      return line(`${device.title}: ${each.join(", ")}`);
    });
  if (latency.length) fact("card.latency", latency);
  const here = zoo.here.rows.filter((row) => row.model === model.name);
  if (here.length) {
    const each = here.map((row) => line(`${row.ms.toPrecision(3)} ms: ${row.setting}${row.remark ? ` (${row.remark})` : ""}`));
    fact("card.here", each);
  }
  const size = `${width} × ${height}`;
  const values = { size, short: preset.resize_short, interpolation: preset.interpolation, fit: preset.fit };
  fact("card.input", el("p", { t: [preset.fit === "crop" ? "card.crop" : "card.other", values] }));
  fact("card.classes", line(`${model.num_classes.toLocaleString("en")} (${model.labels})`));
  fact("card.recipe", model.recipe ? line(model.recipe) : el("p", { t: "card.norecipe" }));
  const papers = series.papers.map((paper) => {
    const link = el("a", { href: paper.url, target: "_blank", rel: "noreferrer", textContent: paper.title });
    return el("p", {}, link, el("span", { className: "faint", textContent: ` ${paper.authors}, ${paper.venue} ${paper.year}` }));
  });
  if (papers.length) fact("card.papers", papers);
  const notes = [model.note, series.note].filter(Boolean).map(line);
  if (notes.length) fact("card.note", notes);
  if (!model.has_weights) fact("card.note", el("p", { t: "card.noweights" }));

  const close = button("plain", "card.close", () => dialog.close());
  const dialog = el(
    "dialog",
    { className: "card", attributes: { "aria-labelledby": "card-title" } },
    el(
      "div",
      { className: "card-head" },
      el("div", {}, el("h2", { id: "card-title" }, breakable(model.name)), el("p", { className: "faint", names: series.names })),
      close,
    ),
    el(
      "div",
      { className: "card-body", tabIndex: 0, attributes: { role: "group", "aria-labelledby": "card-title" } },
      el(
        "dl",
        { className: "figures" },
        figures.map(([name, value, unit]) =>
          el("div", {}, el("dt", name ? { textContent: name } : { t: "column.params_m" }), el("dd", { textContent: `${value}${unit}` })),
        ),
      ),
      el("div", { className: "commands" }, commands(model).map(command)),
      facts,
    ),
  );
  dialog.addEventListener("close", () => (dialog.remove(), closed()));
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close()); // beside the card
  document.body.append(dialog);
  dialog.showModal();
}
