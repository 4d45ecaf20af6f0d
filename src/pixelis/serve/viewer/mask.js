// Masks from COCO's compressed run-length encoding: column-major runs, background first.

/** Where each run ends, counted in pixels; throws when the text is no mask of that size. */
function maskEnds({ size: [height, width], counts }) {
  const lengths = [];
  const ends = [];
  let at = 0;
  let sum = 0;
  while (at < counts.length) {
    let value = 0;
    let shift = 0;
    let code;
    do {
      code = counts.charCodeAt(at++) - 48;
      if (!(code >= 0 && code < 64) || shift > 30) throw new Error("the mask's text is damaged");
      value |= (code & 31) << shift;
      shift += 5;
    } while (code & 32);
    if (code & 16 && shift < 32) value |= -1 << shift;
    if (lengths.length > 2) value += lengths[lengths.length - 2];
    sum += value;
    if (value < 0 || sum > height * width) throw new Error("the mask's runs do not fit its size");
    lengths.push(value);
    ends.push(sum);
  }
  if (sum !== height * width) throw new Error("the mask's runs do not fill its size");
  return ends;
}

/** The mask sampled at `columns` x `rows`: 1 inside, 0 outside, row-major. */
function maskPixels(mask, columns, rows) {
  const [height, width] = mask.size;
  const ends = maskEnds(mask);
  const pixels = new Uint8Array(columns * rows);
  for (let x = 0; x < columns; x++) {
    const start = Math.floor(((x + 0.5) * width) / columns) * height;
    let run = firstRunPast(ends, start);
    for (let y = 0; y < rows; y++) {
      const index = start + Math.floor(((y + 0.5) * height) / rows);
      while (run < ends.length && ends[run] <= index) run++;
      pixels[y * columns + x] = run & 1;
    }
  }
  return pixels;
}

function firstRunPast(ends, index) {
  let low = 0;
  let high = ends.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (ends[middle] <= index) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** A canvas with the mask as a tint, and its edge `edge` pixels wide. */
function maskCanvas(mask, columns, rows, colour, edge) {
  const pixels = maskPixels(mask, columns, rows);
  const canvas = h("canvas", { width: columns, height: rows });
  const image = new ImageData(columns, rows);
  const [red, green, blue] = [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16));
  const outside = (x, y) => x >= 0 && y >= 0 && x < columns && y < rows && !pixels[y * columns + x];
  for (let y = 0; y < rows; y++) {
    for (let x = 0; x < columns; x++) {
      if (!pixels[y * columns + x]) continue;
      const isEdge = outside(x - edge, y) || outside(x + edge, y) || outside(x, y - edge) || outside(x, y + edge);
      image.data.set([red, green, blue, isEdge ? 255 : 96], (y * columns + x) * 4);
    }
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}
