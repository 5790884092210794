// A picture as the network wants it: fitted to its size and normalised, to the bit as torchclas.data.preprocess has it.
// Only what the crop shows is computed.

const { fround } = Math;

/** A half goes to the even neighbour, as in Python and OpenCV. */
function round(x) {
  const below = Math.floor(x);
  const rest = x - below;
  return rest > 0.5 || (rest === 0.5 && below % 2 !== 0) ? below + 1 : below;
}

/**
 * Bring an image {data, width, height} of RGBA bytes to the preset's size, its bars and cuts included.
 * `rules` has `preset`, `max_aspect` and `pillow_may_begin_with_columns`.
 */
export function fitted(image, rules) {
  const { preset } = rules;
  const [height, width] = preset.size;
  const all = { top: 0, left: 0, rows: image.height, columns: image.width };
  if (preset.fit === "squeeze") return resized(image, all, { rows: height, columns: width }, whole(height, width), rules);
  if (preset.fit === "crop") {
    const short = Math.min(height, width);
    const covered = [height, width].map((side) => (side * preset.resize_short) / short);
    const part = withoutEnds(image, (rules.max_aspect * Math.max(...covered)) / Math.min(...covered));
    const torchvision = preset.backend === "torchvision";
    const target = cover(part, covered, torchvision && height === width ? preset.resize_short : null);
    const [top, left] = [target.rows - height, target.columns - width].map((rest) =>
      torchvision ? round(rest / 2) : Math.floor(rest / 2),
    );
    return resized(image, part, target, { top, left, rows: height, columns: width }, rules);
  }
  const scale = Math.min(height / image.height, width / image.width);
  const rows = Math.max(1, round(image.height * scale));
  const columns = Math.max(1, round(image.width * scale));
  const inner = resized(image, all, { rows, columns }, whole(rows, columns), rules);
  const data = new Uint8ClampedArray(4 * height * width);
  const bar = [...preset.mean.map((value) => round(255 * value)), 255];
  for (let at = 0; at < data.length; at++) data[at] = bar[at % 4];
  const [top, left] = [Math.floor((height - rows) / 2), Math.floor((width - columns) / 2)];
  for (let row = 0; row < rows; row++) {
    data.set(inner.data.subarray(4 * row * columns, 4 * (row + 1) * columns), 4 * ((top + row) * width + left));
  }
  return { data, width, height };
}

const whole = (rows, columns) => ({ top: 0, left: 0, rows, columns });

/** The middle of an image whose long side is more than `aspect` times its short one. */
function withoutEnds({ width, height }, aspect) {
  const longest = Math.trunc(aspect * Math.min(height, width));
  const [rows, columns] = [Math.min(height, longest), Math.min(width, longest)];
  return { top: Math.floor((height - rows) / 2), left: Math.floor((width - columns) / 2), rows, columns };
}

/** Rows and columns of `part` when it covers `covered`; `short` is what torchvision makes of its short side. */
function cover(part, covered, short) {
  if (short !== null) {
    const least = Math.min(part.rows, part.columns);
    return { rows: Math.floor((short * part.rows) / least), columns: Math.floor((short * part.columns) / least) };
  }
  const scale = Math.max(covered[0] / part.rows, covered[1] / part.columns);
  return { rows: round(part.rows * scale), columns: round(part.columns * scale) };
}

/** Resize `part` of an image to `target`, and cut `crop` out of that. */
function resized(image, part, target, crop, rules) {
  const { backend, interpolation } = rules.preset;
  const rows = { from: part.top, source: part.rows, target: target.rows, start: crop.top, count: crop.rows };
  const columns = { from: part.left, source: part.columns, target: target.columns, start: crop.left, count: crop.columns };
  const pixels = { data: image.data, width: image.width, height: image.height };
  if (backend !== "opencv") return withPillow(pixels, rows, columns, interpolation, rules.pillow_may_begin_with_columns);
  return withOpenCV(pixels, rows, columns, interpolation);
}

// cv2.resize: a few neighbours of each pixel, however much the image shrinks; coefficients of 11 bits. Its builds for x86
// have bicubic of Intel's library for most sizes, in floating point: here too, and pixels may come out one level away

/** Of each pixel of the crop the places of its neighbours, and their coefficients, of `unit`. */
function neighbours({ from, source, target, start, count }, interpolation) {
  const taps = { bilinear: 2, bicubic: 4, lanczos: 8 }[interpolation];
  const places = new Int32Array(count * taps);
  const weights = new Float64Array(count * taps);
  const unit = taps === 4 ? 1 : 2048;
  for (let n = 0; n < count; n++) {
    const centre = fround(((2 * (start + n) + 1) * source - target) / (2 * target));
    const first = Math.floor(centre);
    const shares = { 2: linear, 4: cubic, 8: lanczos }[taps](fround(centre - first));
    for (let tap = 0; tap < taps; tap++) {
      const place = first + tap + 1 - taps / 2;
      places[n * taps + tap] = from + Math.min(Math.max(place, 0), source - 1);
      weights[n * taps + tap] = unit === 1 ? shares[tap] : round(shares[tap] * unit);
    }
  }
  return { taps, places, weights, unit };
}

const linear = (x) => [fround(1 - x), x];

/** Keys's kernel with a = -0.75, step by step in single precision. */
function cubic(x) {
  const a = -0.75;
  const outer = (y) => fround(fround(fround(fround(fround(a * y) - 5 * a) * y) + 8 * a) * y);
  const inner = (y) => fround(fround(fround(fround(fround(a + 2) * y) - fround(a + 3)) * y) * y);
  const before = fround(outer(fround(x + 1)) - 4 * a);
  const left = fround(inner(x) + 1);
  const right = fround(inner(fround(1 - x)) + 1);
  return [before, left, right, fround(fround(fround(1 - before) - left) - right)];
}

/** Four lobes on each side, in single precision after the sines. */
function lanczos(x) {
  if (x < 1.1920929e-7) return [0, 0, 0, 1, 0, 0, 0, 0];
  const values = Array.from({ length: 8 }, (_, tap) => {
    const angle = (Math.PI / 4) * (x + 3 - tap);
    return fround(((tap % 2 ? 1 : -1) * Math.sin(angle)) / (angle * angle)); // what all have in common falls out
  });
  const share = fround(1 / values.reduce((sum, value) => fround(sum + value), 0));
  return values.map((value) => fround(value * share));
}

function withOpenCV(image, rows, columns, interpolation) {
  const [width, height] = [columns.count, rows.count];
  const across = neighbours(columns, interpolation);
  const down = neighbours(rows, interpolation);
  const lines = new Map(); // rows of the image, resized
  const line = (row) => {
    if (!lines.has(row)) lines.set(row, acrossOne(image, row, across, width));
    return lines.get(row);
  };
  const data = new Uint8ClampedArray(4 * width * height).fill(255);
  const { taps, unit } = down;
  for (let row = 0; row < height; row++) {
    const parts = Array.from({ length: taps }, (_, tap) => line(down.places[row * taps + tap]));
    const weights = down.weights.subarray(row * taps, (row + 1) * taps);
    for (let at = 0, out = 4 * row * width; at < 3 * width; at++, out += at % 3 ? 1 : 2) {
      if (taps === 2) {
        // The shifts of OpenCV's loop, which lose a little.
        const above = ((parts[0][at] >> 4) * weights[0]) >> 16;
        const below = ((parts[1][at] >> 4) * weights[1]) >> 16;
        data[out] = (above + below + 2) >> 2;
      } else {
        let sum = 0;
        for (let tap = 0; tap < taps; tap++) sum += parts[tap][at] * weights[tap];
        data[out] = Math.floor(sum / unit ** 2 + 0.5);
      }
    }
  }
  return { data, width, height };
}

function acrossOne({ data, width: stride }, row, { taps, places, weights }, width) {
  const line = new Float64Array(3 * width);
  for (let column = 0; column < width; column++) {
    for (let tap = 0; tap < taps; tap++) {
      const place = 4 * (row * stride + places[column * taps + tap]);
      const weight = weights[column * taps + tap];
      line[3 * column] += data[place] * weight;
      line[3 * column + 1] += data[place + 1] * weight;
      line[3 * column + 2] += data[place + 2] * weight;
    }
  }
  return line;
}

// Pillow's Image.resize: a filter as wide as the image shrinks, coefficients of 22 bits; rounded after each direction

const sinc = (x) => (x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x));
const FILTERS = {
  bilinear: { reach: 1, at: (x) => Math.max(0, 1 - Math.abs(x)) },
  bicubic: {
    reach: 2,
    at(x) {
      const a = -0.5;
      x = Math.abs(x);
      if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
      return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
    },
  },
  lanczos: { reach: 3, at: (x) => (-3 <= x && x < 3 ? sinc(x) * sinc(x / 3) : 0) },
};

/** Of each pixel of the crop the first source pixel, and the coefficients from there on. */
function window({ source, target, start, count }, interpolation) {
  const { reach, at } = FILTERS[interpolation];
  const scale = source / target;
  const widened = Math.max(scale, 1);
  return Array.from({ length: count }, (_, n) => {
    const centre = (start + n + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - reach * widened + 0.5));
    const end = Math.min(source, Math.trunc(centre + reach * widened + 0.5));
    const shares = Array.from({ length: end - first }, (_, k) => at((k + first - centre + 0.5) * (1 / widened)));
    const sum = shares.reduce((total, share) => total + share, 0);
    const weights = shares.map((share) => {
      const fixed = (sum ? share / sum : share) * 2 ** 22;
      return Math.trunc(fixed < 0 ? fixed - 0.5 : fixed + 0.5);
    });
    return { first, weights: Int32Array.from(weights) };
  });
}

function withPillow(image, rows, columns, interpolation, mayBeginWithColumns) {
  const across = window(columns, interpolation);
  const down = window(rows, interpolation);
  const shrink = [rows.source - rows.target, columns.source - columns.target];
  // What Pillow 13 does where it loses far more rows than columns.
  if (mayBeginWithColumns && shrink[0] > 0 && shrink[0] > 2 * shrink[1] && columns.source !== columns.target) {
    const { from, count } = reached(across, columns.from);
    const part = downAll(image, down, { top: rows.from, left: from, count });
    return acrossAll(part, across, { top: 0, left: columns.from - from, count: rows.count });
  }
  const { from, count } = reached(down, rows.from);
  const part = acrossAll(image, across, { top: from, left: columns.from, count });
  return downAll(part, down, { top: rows.from - from, left: 0, count: columns.count });
}

/** The pixels of the image that a direction looks at. */
function reached(windows, from) {
  const last = windows.at(-1);
  return { from: from + windows[0].first, count: last.first + last.weights.length - windows[0].first };
}

/** Resize `count` rows from `top` on along their length; windows count from `left`. */
const acrossAll = ({ data, width }, windows, { top, left, count }) => {
  const out = new Uint8ClampedArray(4 * windows.length * count);
  for (let row = 0; row < count; row++) {
    for (let column = 0; column < windows.length; column++) {
      const { first, weights } = windows[column];
      weigh(data, 4 * ((top + row) * width + left + first), 4, weights, out, 4 * (row * windows.length + column));
    }
  }
  return { data: out, width: windows.length, height: count };
};

/** The same for `count` columns from `left` on; windows count from `top`. */
const downAll = ({ data, width }, windows, { top, left, count }) => {
  const out = new Uint8ClampedArray(4 * windows.length * count);
  for (let row = 0; row < windows.length; row++) {
    const { first, weights } = windows[row];
    for (let column = 0; column < count; column++) {
      weigh(data, 4 * ((top + first) * width + left + column), 4 * width, weights, out, 4 * (row * count + column));
    }
  }
  return { data: out, width: count, height: windows.length };
};

function weigh(data, from, step, weights, out, at) {
  let red = 1 << 21;
  let green = red;
  let blue = red;
  for (let n = 0, place = from; n < weights.length; n++, place += step) {
    const weight = weights[n];
    red += data[place] * weight;
    green += data[place + 1] * weight;
    blue += data[place + 2] * weight;
  }
  out[at] = red >> 22;
  out[at + 1] = green >> 22;
  out[at + 2] = blue >> 22;
  out[at + 3] = 255;
}

// Normalisation

/** A fitted image as float32 [channels, height, width]; gray is OpenCV's. */
export function normalized({ data, width, height }, { preset, channels }) {
  const size = width * height;
  const tensor = new Float32Array(channels * size);
  const statistics = [preset.mean, preset.std].map((values) => values.map(fround));
  const [mean, std] = channels === 1 ? statistics.map((values) => [average(values)]) : statistics;
  for (let channel = 0; channel < channels; channel++) {
    const table = Float32Array.from({ length: 256 }, (_, value) =>
      fround(fround(fround(value * fround(1 / 255)) - mean[channel]) / std[channel]),
    );
    for (let at = 0; at < size; at++) {
      const value = channels === 1 ? gray(data, 4 * at) : data[4 * at + channel];
      tensor[channel * size + at] = table[value];
    }
  }
  return tensor;
}

const average = (values) => fround(values.reduce((sum, value) => fround(sum + value)) / values.length);
const gray = (data, at) => (9798 * data[at] + 19235 * data[at + 1] + 3735 * data[at + 2] + 2 ** 14) >> 15;
