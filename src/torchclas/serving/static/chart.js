// Accuracy against what a model takes: one point per model, a line per series, the Pareto front in the accent colour.
import { button, el, say, svg } from "./dom.js";
import { language, t } from "./text.js";

const MARGIN = { top: 30, right: 18, bottom: 46, left: 46 };
const NEAR = 28; // pixels from the pointer to the model that is meant
const NAMED = 45; // points in view that all get their names, as far as there is room
const STEP = 1.6; // of a zoom

const log = Math.log10;

/** Values that are round, about `count` of them within [low, high]. */
function roundTicks(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(log(rough));
  const step = [1, 2, 2.5, 5, 10].find((factor) => factor * power >= rough) * power;
  const ticks = [];
  for (let n = Math.ceil(low / step); n * step <= high; n++) ticks.push(Number((n * step).toPrecision(12)));
  return ticks;
}

/** 1, 2 and 5 times the powers of ten; round values where a zoom leaves few of those. */
function logTicks(low, high, width) {
  const ticks = [];
  for (let power = Math.floor(log(low)); power <= log(high); power++) {
    for (const digit of [1, 2, 5]) ticks.push(Number(`${digit}e${power}`));
  }
  const inside = ticks.filter((tick) => tick >= low && tick <= high);
  return inside.length >= 3 ? inside : roundTicks(low, high, Math.max(2, Math.round(width / 120)));
}

/** Those that no other point beats in both: from the left, each is more accurate than all before it. */
export function paretoFront(points) {
  const front = [];
  let best = -Infinity;
  for (const point of [...points].sort((a, b) => a.x - b.x || b.y - a.y)) {
    if (point.y > best) front.push(point);
    best = Math.max(best, point.y);
  }
  return front;
}

const figure = (value) => Number(value.toPrecision(4)).toLocaleString(language(), { maximumFractionDigits: 6 });

/** A chart; `open` is called with the name of a model. */
export function createChart({ open }) {
  let points = [];
  let front = [];
  let across = null; // {names, unit, cost}
  let whole = null; // the domain that holds all: x in powers of ten
  let view = null;
  let at = null; // the point that is pointed at
  let scale = null;
  let pressed = null;

  const tip = el("div", { className: "tip", hidden: true });
  const told = el("p", { className: "quietly", role: "status" });
  const empty = el("p", { className: "faint", t: "chart.none", hidden: true });
  const picture = svg("svg", { tabindex: "0", role: "application" });
  const canvas = el("div", { className: "chart" }, picture, tip);
  const frontText = el("span", {});
  const head = el("div", { className: "row" });
  head.append(
    button("plain", null, () => zoom(1 / STEP), { textContent: "+", label: "chart.in", hint: "chart.in" }),
    button("plain", null, () => zoom(STEP), { textContent: "−", label: "chart.out", hint: "chart.out" }),
    button("plain", "chart.reset", reset),
  );
  const sample = (shape) => svg("svg", { viewBox: "0 0 26 12", "aria-hidden": "true" }, shape);
  const key = el(
    "p",
    { className: "key" },
    el("span", {}, sample([svg("path", { class: "front", d: "M0 6H26" }), svg("circle", { class: "dot best", cx: 13, cy: 6, r: 4.5 })]), frontText),
    el("span", {}, sample([svg("path", { class: "line", d: "M0 6H26" }), svg("circle", { class: "dot", cx: 13, cy: 6, r: 4 })]), el("span", { t: "chart.lines" })),
    el("span", { className: "for-mice", t: "chart.hint" }),
  );
  new ResizeObserver(() => points.length && paint()).observe(canvas);

  function reset() {
    view = whole;
    paint();
  }

  /** Zoom by `factor` about the middle, or about a place given in shares of the picture. */
  function zoom(factor, [across, up] = [0.5, 0.5]) {
    if (!view) return;
    const about = ([low, high], share, [least, most]) => {
      const middle = low + (high - low) * share;
      const low2 = middle - (middle - low) * factor;
      const high2 = middle + (high - middle) * factor;
      return high2 - low2 >= most - least ? [least, most] : [low2, high2];
    };
    view = { x: about(view.x, across, whole.x), y: about(view.y, up, whole.y) };
    paint();
  }

  function paint() {
    const width = canvas.clientWidth;
    if (width < 2 * (MARGIN.left + MARGIN.right)) return; // hidden, or not yet laid out
    const height = Math.round(Math.min(520, Math.max(320, width * 0.42)));
    const [left, right] = [MARGIN.left, width - MARGIN.right];
    const [top, bottom] = [MARGIN.top, height - MARGIN.bottom];
    const x = (value) => left + ((log(value) - view.x[0]) / (view.x[1] - view.x[0])) * (right - left);
    const y = (value) => bottom - ((value - view.y[0]) / (view.y[1] - view.y[0])) * (bottom - top);
    scale = { x, y, left, right, top, bottom };
    picture.setAttribute("viewBox", `0 0 ${width} ${height}`);
    picture.setAttribute("height", height);
    picture.setAttribute("aria-label", t("chart.label", { across: across.names }));
    const clip = svg("clipPath", { id: "plot-area" }, svg("rect", { x: left, y: top - 6, width: right - left + 8, height: bottom - top + 6 }));
    const inside = svg("g", { "clip-path": "url(#plot-area)" }, lines(), svg("path", { class: "front", d: path(front) }), dots());
    picture.replaceChildren(svg("defs", {}, clip), ...axes(), inside, ...names());
    mark(at && points.includes(at) ? at : null);
  }

  const place = (point) => [scale.x(point.x), scale.y(point.y)];
  const path = (row) => row.map((point, n) => `${n ? "L" : "M"}${place(point).map((v) => v.toFixed(1)).join(" ")}`).join("");
  const isIn = (point) => {
    const [x, y] = place(point);
    return x >= scale.left - 1 && x <= scale.right + 1 && y >= scale.top - 1 && y <= scale.bottom + 1;
  };

  function axes() {
    const { left, right, top, bottom } = scale;
    const drawn = [];
    const text = (content, attributes) => {
      const node = svg("text", attributes);
      node.textContent = content;
      drawn.push(node);
    };
    for (const tick of logTicks(10 ** view.x[0], 10 ** view.x[1], right - left)) {
      drawn.push(svg("line", { class: "grid-line", x1: scale.x(tick), x2: scale.x(tick), y1: top, y2: bottom }));
      text(figure(tick), { x: scale.x(tick), y: bottom + 18, "text-anchor": "middle" });
    }
    for (const tick of roundTicks(...view.y, 6)) {
      drawn.push(svg("line", { class: "grid-line", x1: left, x2: right, y1: scale.y(tick), y2: scale.y(tick) }));
      text(figure(tick), { x: left - 8, y: scale.y(tick) + 4, "text-anchor": "end" });
    }
    text(t("chart.y"), { x: 0, y: 12 });
    text(across.names[language()] ?? across.names.en, { x: right, y: bottom + 40, "text-anchor": "end" });
    return drawn;
  }

  function lines() {
    const rows = new Map();
    for (const point of points) rows.set(point.line, [...(rows.get(point.line) ?? []), point]);
    return [...rows].map(([name, row]) => {
      const node = svg("path", { class: "line", d: path(row.sort((a, b) => a.x - b.x)) });
      node.dataset.line = name;
      return node;
    });
  }

  function dots() {
    const best = new Set(front);
    return [...points].sort((a, b) => best.has(a) - best.has(b)).map((point) => {
      const [cx, cy] = place(point);
      const node = svg("circle", { class: best.has(point) ? "dot best" : "dot", cx, cy, r: (best.has(point) ? 5 : 4) - (scale.right < 500 ? 1 : 0) });
      node.dataset.model = point.model;
      node.dataset.line = point.line;
      return node;
    });
  }

  /** The names of the front, and of all where there are few, wherever they cover nothing. */
  function names() {
    const visible = points.filter(isIn);
    const wanted = [...front].reverse().filter(isIn);
    if (visible.length <= NAMED) wanted.push(...visible.filter((point) => !front.includes(point)));
    const taken = [...visible.map((point) => box(...place(point), 5, 5)), ...along(front)];
    const drawn = [];
    for (const point of wanted) {
      const [x, y] = place(point);
      const half = point.model.length * 3.7;
      const spots = [[x - 9 - half, y - 8], [x + 9 + half, y + 8], [x, y - 15], [x - 9 - half, y + 4], [x + 9 + half, y - 4], [x, y + 16]];
      for (const [cx, cy] of spots) {
        const room = box(cx, cy, half, 7);
        if (room.left < scale.left || room.right > scale.right + 8 || room.top < 0 || room.bottom > scale.bottom) continue;
        if (taken.some((other) => meets(other, room))) continue;
        taken.push(room);
        const node = svg("text", { class: "name", x: cx, y: cy + 4, "text-anchor": "middle" });
        node.textContent = point.model;
        drawn.push(node);
        break;
      }
    }
    return drawn;
  }

  /** Boxes that cover a line. */
  function along(row) {
    const covered = [];
    for (let n = 1; n < row.length; n++) {
      const [[x0, y0], [x1, y1]] = [place(row[n - 1]), place(row[n])];
      const steps = Math.ceil(Math.hypot(x1 - x0, y1 - y0) / 6);
      for (let s = 1; s < steps; s++) covered.push(box(x0 + ((x1 - x0) * s) / steps, y0 + ((y1 - y0) * s) / steps, 2, 2));
    }
    return covered;
  }

  const box = (x, y, half, tall) => ({ left: x - half, right: x + half, top: y - tall, bottom: y + tall });
  const meets = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;

  /** Point at a model: it, its line and what is known of it stand out. */
  function mark(point, aloud = false) {
    at = point;
    picture.classList.toggle("dimmed", Boolean(point));
    for (const node of picture.querySelectorAll(".line, .dot")) {
      if (!node.dataset.line) continue;
      node.classList.toggle("on", point?.line === node.dataset.line);
      node.classList.toggle("at", point !== null && point?.model === node.dataset.model);
    }
    tip.hidden = !point;
    if (!point) return;
    const values = `${figure(point.x)} ${across.unit}, top-1 ${point.y.toFixed(2)} %`;
    const parts = [el("strong", { textContent: point.model }), el("span", { textContent: values })];
    if (front.includes(point)) parts.push(el("br"), el("span", { t: "chart.onfront" }));
    if (point.remark) parts.push(el("br"), el("span", { className: "faint", textContent: point.remark }));
    tip.replaceChildren(...parts);
    const [x, y] = place(point);
    const [wide, tall] = [tip.offsetWidth, tip.offsetHeight];
    const ratio = picture.clientWidth / picture.viewBox.baseVal.width || 1;
    tip.style.left = `${Math.max(0, Math.min(x * ratio + 14, canvas.clientWidth - wide))}px`;
    tip.style.top = `${Math.max(0, y * ratio - tall - 14 < 0 ? y * ratio + 16 : y * ratio - tall - 14)}px`;
    if (aloud) told.textContent = `${point.model}: ${values}`;
  }

  function nearest(event) {
    const { left, top } = picture.getBoundingClientRect();
    const [px, py] = [event.clientX - left, event.clientY - top];
    let [found, least] = [null, NEAR];
    for (const point of points.filter(isIn)) {
      const [x, y] = place(point);
      const distance = Math.hypot(x - px, y - py);
      if (distance < least) [found, least] = [point, distance];
    }
    return { px, py, found };
  }

  picture.addEventListener("pointermove", (event) => {
    if (!scale) return;
    const { px, py, found } = nearest(event);
    if (!pressed) {
      picture.style.cursor = found ? "pointer" : "";
      return mark(found);
    }
    const area = { x: Math.min(px, pressed.x), y: Math.min(py, pressed.y), width: Math.abs(px - pressed.x), height: Math.abs(py - pressed.y) };
    pressed.area = area.width > 8 || area.height > 8 ? area : null;
    pressed.node.replaceChildren(...(pressed.area ? [svg("rect", { class: "brush", ...area })] : []));
  });
  picture.addEventListener("pointerleave", () => pressed || mark(null));
  picture.addEventListener("pointerdown", (event) => {
    if (event.button || !scale || event.pointerType === "touch") return;
    const { px, py } = nearest(event);
    pressed = { x: px, y: py, node: picture.appendChild(svg("g")), area: null };
    picture.setPointerCapture(event.pointerId);
  });
  picture.addEventListener("pointercancel", () => (pressed?.node.remove(), (pressed = null)));
  picture.addEventListener("pointerup", (event) => {
    const { found } = nearest(event);
    const area = pressed?.area;
    pressed?.node.remove();
    pressed = null;
    if (area && area.width > 8 && area.height > 8) {
      const share = (value, low, high) => Math.min(1, Math.max(0, (value - low) / (high - low)));
      const between = ([low, high], a, b) => [low + (high - low) * a, low + (high - low) * b];
      const { left, right, top, bottom } = scale;
      view = {
        x: between(view.x, share(area.x, left, right), share(area.x + area.width, left, right)),
        y: between(view.y, 1 - share(area.y + area.height, top, bottom), 1 - share(area.y, top, bottom)),
      };
      return paint();
    }
    // A finger first shows what it points at, and opens what is shown already.
    if (found && (event.pointerType !== "touch" || found === at)) open(found.model);
    else mark(found);
  });
  picture.addEventListener("dblclick", (event) => nearest(event).found || reset());
  picture.addEventListener(
    "wheel",
    (event) => {
      if (!event.ctrlKey && !event.metaKey) return; // the page scrolls
      event.preventDefault();
      const { px, py } = nearest(event);
      const { left, right, top, bottom } = scale;
      zoom(event.deltaY > 0 ? STEP : 1 / STEP, [(px - left) / (right - left), (bottom - py) / (bottom - top)]);
    },
    { passive: false },
  );
  picture.addEventListener("keydown", (event) => {
    const row = points.filter(isIn).sort((a, b) => a.x - b.x || a.y - b.y);
    const here = row.indexOf(at);
    const steps = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 };
    if (event.key in steps && row.length) {
      mark(row[here < 0 ? 0 : (here + steps[event.key] + row.length) % row.length], true);
    } else if (event.key === "Enter" && at) open(at.model);
    else if (event.key === "Escape") mark(null);
    else if (event.key === "+") zoom(1 / STEP);
    else if (event.key === "-") zoom(STEP);
    else if (event.key === "0") reset();
    else return;
    event.preventDefault();
  });
  picture.addEventListener("blur", () => mark(null));

  return {
    node: el("div", {}, canvas, empty, key, told),
    buttons: head,
    /** Draw other points, {model, x, y, line, remark}; `keep` leaves the zoom as it is. */
    draw(given, about, { keep = false } = {}) {
      points = given;
      across = about;
      front = paretoFront(points);
      say(frontText, about.cost ? "chart.front.cost" : "chart.front");
      canvas.hidden = !points.length;
      empty.hidden = points.length > 0;
      if (!points.length) return;
      const xs = points.map((point) => log(point.x));
      const ys = points.map((point) => point.y);
      const padded = (values, share, least) => {
        const [low, high] = [Math.min(...values), Math.max(...values)];
        const pad = Math.max((high - low) * share, least);
        return [low - pad, high + pad];
      };
      whole = { x: padded(xs, 0.04, 0.03), y: padded(ys, 0.06, 0.3) };
      if (!keep || !view) view = whole;
      paint();
    },
    /** Draw the same in another language. */
    repaint: () => points.length && paint(),
  };
}
