// "Explore": the whole zoo as a chart and a table, of the models that pass the filters.
import { openCard } from "./card.js";
import { createChart } from "./chart.js";
import { breakable, button, el, say } from "./dom.js";
import { t, whenLanguageChanges } from "./text.js";

const KINDS = ["server", "mobile", "transformer", "other"];

/** What the chart can lay models out by: {id, group, names, unit, value(model)}. */
function axes(zoo) {
  const found = zoo.devices.flatMap((device) =>
    device.columns.map((column, n) => {
      // What the title of a device says of every column need not be said again.
      const title = `${device.title.split(",")[0]}, ${column}`;
      return {
        id: `${device.id}.${n}`,
        group: ["zoo.device", { device: device.title }],
        names: { en: `Latency, ms: ${title}`, zh: `延迟（毫秒）：${title}` },
        unit: "ms",
        value: (model) => model.latency[device.id]?.[n] ?? null,
      };
    }),
  );
  const settings = Map.groupBy(zoo.here.rows, (row) => row.setting);
  for (const [setting, rows] of settings) {
    const timed = new Map(rows.map((row) => [row.model, row]));
    found.push({
      id: `here.${setting}`,
      group: ["zoo.here", { cpu: zoo.here.cpu }],
      names: { en: `Latency here, ms: ${setting}`, zh: `本机延迟（毫秒）：${setting}` },
      here: true,
      unit: "ms",
      value: (model) => timed.get(model.name)?.ms ?? null,
      remark: (model) => timed.get(model.name)?.remark ?? "",
    });
  }
  const cost = (id, names, unit) => ({ id, group: ["zoo.cost"], names, unit, cost: true, value: (model) => model[id] });
  found.push(
    cost("gflops", { en: "GFLOPs (10⁹ multiply-adds)", zh: "GFLOPs（10⁹ 次乘加）" }, "GFLOPs"),
    cost("params_m", { en: "Parameters, M", zh: "参数量（M）" }, "M"),
  );
  return found;
}

/** Build the part in `place` from what `GET /v1/zoo` gives. */
export function startExplore(place, zoo) {
  const all = axes(zoo);
  const series = new Map(zoo.series.map((one) => [one.id, one]));
  const hereFirst = all.find((axis) => axis.here);
  const columns = [
    { id: "name", value: (model) => model.name, text: true },
    { id: "series", value: (model) => series.get(model.series).names.en, text: true },
    { id: "top1", value: (model) => model.top1, digits: 2, falls: true },
    { id: "top5", value: (model) => model.top5, digits: 2, falls: true },
    { id: "params_m", value: (model) => model.params_m },
    { id: "gflops", value: (model) => model.gflops },
    ...(hereFirst ? [{ id: "here", value: hereFirst.value, precision: 3 }] : []),
    ...zoo.devices.map((device) => ({ id: device.id, value: (model) => model.latency[device.id]?.[0] ?? null })),
    { id: "size", value: (model) => model.preset.size[0] },
  ];
  let axis = all[0];
  let sorting = { column: columns[2], down: true };

  // Filters
  const words = el("input", { type: "search", placeholder: "zoo.search.hint" });
  const any = () => el("option", { value: "", t: "zoo.any" });
  const kind = el("select", {}, any(), KINDS.map((one) => el("option", { value: one, t: one === "other" ? "kind.others" : `kind.${one}` })));
  const which = el("select", {}, any(), zoo.series.map((one) => el("option", { value: one.id, names: one.names })));
  const least = el("input", { type: "number", min: 0, max: 100, step: "any", inputMode: "decimal" });
  const most = el("input", { type: "number", min: 0, step: "any", inputMode: "decimal" });
  const mostLabel = el("span");
  const across = el("select", {}, groups());
  const clear = button("plain", "zoo.reset", () => {
    for (const field of [words, kind, which, least, most]) field.value = "";
    draw();
  });

  function groups() {
    const found = new Map();
    for (const one of all) {
      const group = JSON.stringify(one.group);
      if (!found.has(group)) found.set(group, el("optgroup"));
      found.get(group).append(el("option", { value: one.id, names: one.names }));
    }
    return [...found.values()];
  }

  // The heading of a group of options is an attribute, which no element's text can be.
  function nameGroups() {
    const keys = new Map(all.map((one) => [JSON.stringify(one.group), one.group]));
    [...keys.values()].forEach((group, n) => (across.children[n].label = t(...group)));
  }

  const field = (key, input, className) => el("label", { className }, el("span", { t: key }), input);
  const filters = el(
    "div",
    { className: "filters", attributes: { role: "search" } },
    field("zoo.search", words, "wide"),
    field("zoo.kind", kind, "choice"),
    field("zoo.series", which, "choice"),
    field("zoo.min", least, "short"),
    el("label", { className: "short" }, mostLabel, most),
    clear,
  );

  // Chart and table
  const chart = createChart({ open });
  const count = el("span", { className: "first" });
  const drawn = el("span", { className: "faint" });
  const counted = el("p", { className: "counted", role: "status" }, count, drawn);
  const body = el("tbody");
  const heads = columns.map((column) => {
    const press = button("", `column.${column.id}`, () => {
      const down = sorting.column === column ? !sorting.down : Boolean(column.falls);
      sorting = { column, down };
      draw({ keep: true });
    });
    return el("th", { scope: "col", className: column.text ? "" : "figure" }, press);
  });
  const table = el("table", {}, el("thead", {}, el("tr", {}, heads)), body);
  const none = el("p", { className: "faint", t: "zoo.none", hidden: true });
  const scroll = el("div", { className: "scroll", tabIndex: 0, label: "zoo.table", attributes: { role: "region" } }, table);

  function passes(model) {
    const one = series.get(model.series);
    const sought = words.value.trim().toLowerCase().split(/\s+/).filter(Boolean);
    const known = [model.name, model.arch, ...Object.values(one.names)].join(" ").toLowerCase();
    const value = axis.value(model);
    return (
      sought.every((word) => known.includes(word)) &&
      (!kind.value || one.kind === kind.value) &&
      (!which.value || one.id === which.value) &&
      (!least.value || (model.top1 !== null && model.top1 >= Number(least.value))) &&
      (!most.value || (value !== null && value <= Number(most.value)))
    );
  }

  /** What has no figure stands last, whichever way the rest is sorted. */
  function compare(a, b) {
    const [one, other] = [sorting.column.value(a), sorting.column.value(b)];
    if (one === null || other === null) return (one === null) - (other === null);
    const order = sorting.column.text ? one.localeCompare(other, "en", { numeric: true }) : one - other;
    return sorting.down ? -order : order;
  }

  function cell(column, model) {
    const value = column.value(model);
    if (column.id === "series") return el("td", { className: "faint", names: series.get(model.series).names });
    if (column.id === "size") {
      const [height, width] = model.preset.size;
      return el("td", { className: "figure faint", textContent: height === width ? `${width}` : `${width}×${height}` });
    }
    if (value === null) return el("td", { className: "figure faint", textContent: "–" });
    const shown = column.digits ? value.toFixed(column.digits) : column.precision ? Number(value.toPrecision(column.precision)) : value;
    return el("td", { className: "figure", textContent: shown });
  }

  const rows = new Map();
  function row(model) {
    if (!rows.has(model)) {
      const press = button("", null, () => open(model.name));
      press.append(...breakable(model.name));
      const name = el("th", { scope: "row" }, press);
      rows.set(model, el("tr", {}, name, columns.slice(1).map((column) => cell(column, model))));
    }
    return rows.get(model);
  }

  function draw({ keep = false } = {}) {
    const found = zoo.models.filter(passes);
    const points = found
      .map((model) => ({ model: model.name, x: axis.value(model), y: model.top1, line: model.line, remark: axis.remark?.(model) }))
      .filter((point) => point.x !== null && point.y !== null);
    say(count, "zoo.count", { shown: found.length, all: zoo.models.length });
    say(drawn, "zoo.drawn", { drawn: points.length });
    say(mostLabel, "zoo.max", { unit: axis.unit === "ms" ? { en: "ms", zh: "毫秒" } : axis.unit });
    body.replaceChildren(...found.sort(compare).map(row));
    scroll.hidden = !found.length;
    none.hidden = found.length > 0;
    columns.forEach((column, n) => {
      if (column === sorting.column) heads[n].setAttribute("aria-sort", sorting.down ? "descending" : "ascending");
      else heads[n].removeAttribute("aria-sort");
    });
    chart.draw(points, axis, { keep });
  }

  function open(name) {
    if (document.querySelector("dialog[open]")) return;
    const model = zoo.models.find((one) => one.name.toLowerCase() === name.toLowerCase());
    if (!model) return;
    history.replaceState(null, "", `#explore/${model.name}`);
    openCard(model, zoo, () => history.replaceState(null, "", "#explore"));
  }

  for (const input of [words, least, most]) input.addEventListener("input", () => draw());
  for (const choice of [kind, which]) choice.addEventListener("change", () => draw());
  across.addEventListener("change", () => {
    axis = all.find((one) => one.id === across.value);
    most.value = "";
    draw();
  });
  whenLanguageChanges(() => (nameGroups(), chart.repaint()));
  nameGroups();

  const lead = zoo.here.rows.length ? "zoo.lead.here" : "zoo.lead";
  const values = { models: zoo.models.length, series: zoo.series.length, cpu: zoo.here.cpu };
  place.replaceChildren(
    el("div", { className: "intro" }, el("h1", { t: "zoo.title" }), el("p", { className: "lead", t: [lead, values] })),
    filters,
    el(
      "div",
      { className: "plot" },
      el("div", { className: "plot-head" }, el("div", { className: "filters" }, field("zoo.across", across, "across")), chart.buttons),
      chart.node,
    ),
    counted,
    none,
    scroll,
  );
  draw();
  const named = decodeURIComponent(location.hash.slice("#explore/".length));
  if (location.hash.startsWith("#explore/")) open(named);
}
