// The curve of a training's loss: every point thin, their running mean thick, validation in its own colour.
import {el, fill, svg} from "./dom.js";

const kHeight = 220, kLeft = 46, kBottom = 24, kTop = 8;
const kPoints = 600;  // more than pixels tell nothing

/// From a log: tqdm's bars ("120/1000 […, lr: 4.0e-04 loss: 3.1e-01]"), and "validation loss 0.3123" behind the bar of its
/// step.
export function losses_of(logs) {
  const train = new Map(), validation = new Map();
  let step = 0;
  for (const match of logs.matchAll(/\|\s*(\d+)\/\d+ \[[^\]\r\n]*?loss: ([-+.\deE]+)|validation loss:? ([-+.\deE]+)/g)) {
    if (match[3]) validation.set(step, Number(match[3]));
    else train.set(step = Number(match[1]), Number(match[2]));
  }
  const sorted = (map) => [...map].filter(([, loss]) => Number.isFinite(loss)).sort((a, b) => a[0] - b[0]);
  return {train: sorted(train), validation: sorted(validation)};
}

function thinned(points) {
  const every = Math.ceil(points.length / kPoints);
  return every > 1 ? points.filter((_, i) => i % every === 0 || i === points.length - 1) : points;
}

/// The mean of the points around each: it lags behind nothing.
function smoothed(points) {
  const reach = Math.max(2, Math.round(points.length / 40));
  const sums = [0];
  for (const [, loss] of points) sums.push(sums.at(-1) + loss);
  return points.map(([step], i) => {
    const from = Math.max(0, i - reach), to = Math.min(points.length, i + reach + 1);
    return [step, (sums[to] - sums[from]) / (to - from)];
  });
}

/// {node, show({train, validation}, total_steps)}
export function loss_chart() {
  const drawing = svg("svg", {class: "chart", role: "img", "aria-label": "Loss by step"});
  const words = el("p", {class: "muted"}, "The curve begins with the first steps.");
  const held_out = el("span", {class: "v", hidden: true}, el("b"), "validation");
  const node = el("figure", {}, drawing, el("figcaption", {class: "legend"}, el("span", {}, el("b"), "loss"), held_out, words));
  let shown = null;
  const draw = () => {
    if (!shown?.train.length) return;
    const {train, validation, total} = shown;
    const width = drawing.clientWidth || 900;  // letters keep their shape on narrow screens
    drawing.setAttribute("viewBox", `0 0 ${width} ${kHeight}`);
    const values = [...train, ...validation].map(([, loss]) => loss).sort((a, b) => a - b);
    // A few outliers must not press the curve flat.
    const high = values[Math.ceil(0.99 * (values.length - 1))] * 1.1 || 1, low = Math.min(values[0], high) * 0.9;
    const last = Math.max(total || 0, train.at(-1)[0], 1);
    const x = (step) => kLeft + (width - kLeft - 8) * step / last;
    const y = (loss) => kTop + (kHeight - kTop - kBottom) * (1 - Math.min(1, Math.max(0, (loss - low) / (high - low || 1))));
    const line = (points, name) => svg("polyline", {class: name, points: points.map(([s, l]) => `${x(s).toFixed(1)},${y(l).toFixed(1)}`).join(" ")});
    const parts = [];
    for (let i = 0; i <= 3; ++i) {
      const loss = low + (high - low) * i / 3;
      parts.push(svg("line", {class: "axis", x1: kLeft, x2: width - 8, y1: y(loss), y2: y(loss)}), svg("text", {x: kLeft - 8, y: y(loss) + 4, "text-anchor": "end"}, loss.toPrecision(2)));
    }
    for (const share of [0, 0.25, 0.5, 0.75, 1])
      parts.push(svg("text", {x: x(last * share), y: kHeight - 6, "text-anchor": share === 0 ? "start" : share === 1 ? "end" : "middle"}, `${Math.round(last * share)}${share === 1 ? " steps" : ""}`));
    parts.push(line(thinned(train), "raw"), line(thinned(smoothed(train)), "smooth"));
    if (validation.length) parts.push(line(validation, "validation"));
    fill(drawing, parts);
    held_out.hidden = !validation.length;
    const now = smoothed(train).at(-1)[1].toPrecision(3);
    drawing.setAttribute("aria-label", `Loss by step: ${now} at step ${train.at(-1)[0]}`);
    words.textContent = `now ${now}${validation.length ? `, validation ${validation.at(-1)[1].toPrecision(3)}` : ""}`;
  };
  new ResizeObserver(draw).observe(drawing);
  const show = (losses, total) => {
    shown = {...losses, total};
    draw();
  };
  return {node, show};
}
