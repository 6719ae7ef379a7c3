// Masks: run lengths as COCO writes them (column by column, off first), cells, and outlines.

// One byte a pixel, column by column.
export function decode({ size: [h, w], counts }) {
  const bits = new Uint8Array(h * w);
  let at = 0;
  counts.forEach((count, k) => {
    if (k % 2) bits.fill(1, at, at + count);
    at += count;
  });
  return bits;
}

export function encode(bits, h, w) {
  const counts = [];
  let start = 0;
  let value = 0;
  while (start < bits.length) {
    let end = bits.indexOf(1 - value, start);
    if (end < 0) end = bits.length;
    counts.push(end - start);
    start = end;
    value = 1 - value;
  }
  return { size: [h, w], counts };
}

// The cells of a mask within its box, row by row, `scale` cells to a pixel (at most 1): {x, y, w, h, cells, scale, area}.
export function cut(mask, scale) {
  const [h] = mask.size;
  const spans = []; // column, first row, row behind the last, of the columns that are sampled
  const first = (value) => Math.ceil(value * scale - 0.5);
  let [left, top, right, bottom, at] = [Infinity, Infinity, 0, 0, 0];
  for (let k = 0; k < mask.counts.length; k++) {
    const end = at + mask.counts[k];
    for (let from = at; k % 2 && from < end; ) {
      const column = Math.floor(from / h);
      const to = Math.min(end, (column + 1) * h);
      const x = first(column);
      const y0 = first(from - column * h);
      const y1 = first(to - column * h);
      if (first(column + 1) > x && y1 > y0) {
        spans.push(x, y0, y1);
        left = Math.min(left, x);
        right = Math.max(right, x + 1);
        top = Math.min(top, y0);
        bottom = Math.max(bottom, y1);
      }
      from = to;
    }
    at = end;
  }
  if (left > right) [left, top, right, bottom] = [0, 0, 0, 0];
  const [w, rows] = [right - left, bottom - top];
  const cells = new Uint8Array(w * rows);
  let area = 0;
  for (let k = 0; k < spans.length; k += 3) {
    area += spans[k + 2] - spans[k + 1];
    for (let y = spans[k + 1]; y < spans[k + 2]; y++) cells[(y - top) * w + spans[k] - left] = 1;
  }
  return { x: left, y: top, w, h: rows, cells, scale, area };
}

export function holds(shape, x, y) {
  const column = Math.floor(x * shape.scale) - shape.x;
  const row = Math.floor(y * shape.scale) - shape.y;
  return column >= 0 && row >= 0 && column < shape.w && row < shape.h && shape.cells[row * shape.w + column] === 1;
}

const STEP = [[1, 0], [0, 1], [-1, 0], [0, -1]]; // east, south, west, north
const AHEAD_RIGHT = [[0, 0], [-1, 0], [-1, -1], [0, -1]];
const AHEAD_LEFT = [[0, -1], [0, 0], [-1, 0], [-1, -1]];

// The outline as a path in image coordinates: cells on the right hand, corners cut, so that stairs look like slopes.
export function trace(shape) {
  const { w, h, cells, scale } = shape;
  const path = new Path2D();
  const is = (x, y) => x >= 0 && y >= 0 && x < w && y < h && cells[y * w + x] === 1;
  const seen = new Uint8Array(w * h);
  for (let y0 = 0; y0 < h; y0++) {
    for (let x0 = 0; x0 < w; x0++) {
      if (!is(x0, y0) || is(x0, y0 - 1) || seen[y0 * w + x0]) continue;
      let [x, y, heading, begun] = [x0, y0, 0, false];
      const mark = (dx, dy) => {
        const [px, py] = [(shape.x + x + dx) / scale, (shape.y + y + dy) / scale];
        if (begun) path.lineTo(px, py);
        else path.moveTo(px, py);
        begun = true;
      };
      do {
        if (heading === 0) seen[y * w + x] = 1;
        const [sx, sy] = STEP[heading];
        x += sx;
        y += sy;
        let turned = heading;
        if (!is(x + AHEAD_RIGHT[heading][0], y + AHEAD_RIGHT[heading][1])) turned = (heading + 1) % 4;
        else if (is(x + AHEAD_LEFT[heading][0], y + AHEAD_LEFT[heading][1])) turned = (heading + 3) % 4;
        if (turned !== heading) {
          mark(-sx / 2, -sy / 2);
          mark(STEP[turned][0] / 2, STEP[turned][1] / 2);
        }
        heading = turned;
      } while (x !== x0 || y !== y0 || heading !== 0);
      path.closePath();
    }
  }
  return path;
}

// Set the pixels within `radius` of the line between two points.
export function paint(bits, h, w, [ax, ay], [bx, by], radius, value) {
  const x0 = Math.max(0, Math.floor(Math.min(ax, bx) - radius));
  const x1 = Math.min(w - 1, Math.ceil(Math.max(ax, bx) + radius));
  const y0 = Math.max(0, Math.floor(Math.min(ay, by) - radius));
  const y1 = Math.min(h - 1, Math.ceil(Math.max(ay, by) + radius));
  const [dx, dy] = [bx - ax, by - ay];
  const length = dx * dx + dy * dy || 1;
  for (let x = x0; x <= x1; x++) {
    for (let y = y0; y <= y1; y++) {
      const [px, py] = [x + 0.5 - ax, y + 0.5 - ay];
      const along = Math.max(0, Math.min(1, (px * dx + py * dy) / length));
      if ((px - along * dx) ** 2 + (py - along * dy) ** 2 <= radius * radius) bits[x * h + y] = value;
    }
  }
}

// The pixels whose centers lie within a polygon (even-odd).
export function fill(vertices, h, w) {
  const bits = new Uint8Array(h * w);
  for (let x = 0; x < w; x++) {
    const crossings = [];
    vertices.forEach(([ax, ay], k) => {
      const [bx, by] = vertices[(k + 1) % vertices.length];
      if (ax <= x + 0.5 !== bx <= x + 0.5) crossings.push(ay + ((x + 0.5 - ax) / (bx - ax)) * (by - ay));
    });
    crossings.sort((a, b) => a - b);
    for (let k = 0; k + 1 < crossings.length; k += 2) {
      const from = Math.max(0, Math.ceil(crossings[k] - 0.5));
      const to = Math.min(h, Math.ceil(crossings[k + 1] - 0.5));
      if (to > from) bits.fill(1, x * h + from, x * h + to);
    }
  }
  return bits;
}
