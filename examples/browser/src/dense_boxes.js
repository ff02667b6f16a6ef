// Object proposals that do not depend on the image: boxes of a few sizes on regular grids. The boxes and their order
// are those of tf_fast_rcnn.data.proposals.dense.

const SCALES = [0.12, 0.2, 0.35, 0.55, 0.85];
const ASPECT_RATIOS = [0.5, 1, 2];

export const DEFAULT_DENSE_BOXES = {
  sizes: SCALES.flatMap((scale) => ASPECT_RATIOS.map((ratio) => [scale / Math.sqrt(ratio), scale * Math.sqrt(ratio)])),
  step: 0.4,
};

// `dense` is {sizes, step}: heights and widths relative to the shorter side of the image, and the distance between
// neighbours relative to the sides of the box. Boxes whose shorter side is below `minSize`, relative to the shorter
// side of the image, are omitted. Returns a Float32Array of [ymin, xmin, ymax, xmax] relative to the image.
export function denseBoxes(height, width, dense, minSize = 0) {
  const shorter = Math.min(height, width);
  const rows = height / shorter;
  const columns = width / shorter;
  const boxes = [];
  for (const [boxHeight, boxWidth] of dense.sizes) {
    const across = intervals(columns, boxWidth, dense.step);
    for (const [top, bottom] of intervals(rows, boxHeight, dense.step)) {
      for (const [left, right] of across) {
        const box = [top / rows, left / columns, bottom / rows, right / columns].map(Math.fround);
        if (Math.min((box[2] - box[0]) * rows, (box[3] - box[1]) * columns) >= minSize) boxes.push(...box);
      }
    }
  }
  return Float32Array.from(boxes);
}

// Starts and ends of evenly spaced boxes along one axis, plus one clipped box at either border.
function intervals(length, side, step) {
  const count = Math.max(roundHalfToEven((length - side) / (step * side)), 0) + 1;
  const spacing = count > 1 ? (length - side) / (count - 1) : step * side;
  const first = count > 1 ? 0 : (length - side) / 2;
  const found = [];
  for (let i = -1; i <= count; i++) {
    const start = first + spacing * i;
    const interval = [start, start + side].map((edge) => Math.min(Math.max(edge, 0), length));
    if (interval[1] > interval[0]) found.push(interval);
  }
  return found;
}

function roundHalfToEven(value) {
  const rounded = Math.round(value);
  return rounded - value === 0.5 && rounded % 2 !== 0 ? rounded - 1 : rounded;
}
