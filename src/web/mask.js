// Paints a mask over the start picture: white is drawn anew. Strokes are kept in the picture's own pixels, so that they can
// be undone, shown at any size and written at the picture's, which is what the server asks of a mask.
import {button, el, notice} from "./dom.js";

const kPaintedKey = "calotype.painted";  // [mask, its picture]: the mask that was painted last, also after reloading
const kLonger = 1024;                    // pixels of the longer side on the screen
const kBrush = {min: 1, max: 40, value: 10};  // percent of the longer side
const kInk = "#e8352b";

/// Lets `mask` be painted over what `start` shows; both are file fields. A painted mask goes when its picture changes.
export function offer_painting(start, mask) {
  let drawn = {url: "", strokes: []};
  const open = button("Paint it on the start picture", async () => {
    const result = await paint(start.thumb, mask.get() === drawn.url ? drawn.strokes : []);
    if (!result) return;
    const sent = mask.send(new File([result.png], "mask.png", {type: "image/png"}));
    await start.ready();  // the picture may still be on its way
    const picture = start.get();
    if (!await sent) return;
    drawn = {url: mask.get(), strokes: result.strokes};
    localStorage.setItem(kPaintedKey, JSON.stringify([drawn.url, picture]));
    look();
  }, {class: "paint", "aria-haspopup": "dialog"});
  const look = () => {
    let painted = [];
    try { painted = JSON.parse(localStorage.getItem(kPaintedKey)) ?? []; } catch { /* none */ }
    if (mask.get() && mask.get() === painted[0] && start.get() !== painted[1]) mask.set("");
    open.hidden = start.thumb.hidden || !start.thumb.complete || !start.thumb.naturalWidth;
  };
  start.on_change = look;
  for (const event of ["load", "error"]) start.thumb.addEventListener(event, look);
  look();
  mask.box.append(open);
}

function draw(context, {points, size, erase}) {
  context.globalCompositeOperation = erase ? "destination-out" : "source-over";
  context.lineCap = context.lineJoin = "round";
  context.lineWidth = size;
  context.beginPath();
  context.moveTo(...points[0]);
  for (const [x, y] of points) context.lineTo(x + 0.01, y);  // a line without length may draw no dot
  context.stroke();
}

/// A canvas whose units are the picture's pixels.
function canvas_of(width, height, scale, colour) {
  const canvas = el("canvas", {role: "img", "aria-label": "The mask so far", width: Math.max(1, Math.round(width * scale)), height: Math.max(1, Math.round(height * scale))});
  const context = canvas.getContext("2d", {willReadFrequently: true});
  context.scale(scale, scale);
  context.strokeStyle = colour;
  return {canvas, context};
}

/// The mask in black and white; null where the browser has no room for so large a canvas.
function png_of(width, height, strokes) {
  const {canvas, context} = canvas_of(width, height, 1, "white");
  for (const stroke of strokes) draw(context, stroke);
  context.globalCompositeOperation = "destination-over";
  context.fillRect(0, 0, width, height);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}

/// Asks for strokes over the picture in `thumb`, beginning with those of `before`: {png, strokes}, null after Cancel.
function paint(thumb, before) {
  const {naturalWidth: width, naturalHeight: height} = thumb, longer = Math.max(width, height);
  const {canvas, context} = canvas_of(width, height, kLonger / longer, kInk);
  const strokes = [...before];
  let stroke = null, erasing = false;
  const ring = el("span", {class: "ring", hidden: true});  // the brush as it would paint
  const sheet = el("div", {class: "painting"}, el("img", {src: thumb.src, alt: "Start picture"}), canvas, ring);
  sheet.style.setProperty("--shape", width / height);
  const size = el("input", {type: "range", ...kBrush});
  const erase = button("Erase", () => { erasing = !erasing; erase.setAttribute("aria-pressed", erasing); }, {class: "chip", "aria-pressed": "false"});
  const undo = () => { strokes.pop(); redraw(); };
  const clear = () => { strokes.push({points: [[width / 2, height / 2]], size: 4 * longer, erase: true}); redraw(); };
  const done = button("Done", () => dialog.close("done"), {class: "primary"});
  const look = () => { done.disabled = !context.getImageData(0, 0, canvas.width, canvas.height).data.some((value) => value > 127); };
  const redraw = () => {
    context.clearRect(0, 0, width, height);
    for (const each of strokes) draw(context, each);
    look();
  };
  const show_ring = ([x, y]) => {
    ring.hidden = false;
    Object.assign(ring.style, {left: `${100 * x / width}%`, top: `${100 * y / height}%`, width: `${size.value * longer / width}%`});
  };
  size.addEventListener("input", () => show_ring([width / 2, height / 2]));
  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width * width, (event.clientY - box.top) / box.height * height];
  };
  canvas.onpointerdown = (event) => {
    if (event.button || stroke) return;  // one finger paints
    canvas.setPointerCapture(event.pointerId);
    stroke = {id: event.pointerId, points: [place(event)], size: size.value / 100 * longer, erase: erasing};
    strokes.push(stroke);
    show_ring(stroke.points[0]);
    draw(context, stroke);
  };
  canvas.onpointermove = (event) => {
    show_ring(place(event));
    if (stroke?.id !== event.pointerId) return;
    const tail = [stroke.points.at(-1), ...(event.getCoalescedEvents?.() ?? []).map(place), place(event)];
    stroke.points.push(...tail.slice(1));
    draw(context, {...stroke, points: tail});
  };
  canvas.onpointerup = canvas.onpointercancel = (event) => {
    if (stroke?.id === event.pointerId) stroke = null;
    look();
  };
  canvas.onpointerleave = () => { ring.hidden = true; };
  const dialog = el("dialog", {class: "painter", "aria-label": "Paint the mask"}, el("h2", {}, "Paint what is drawn anew"),
    el("p", {class: "help"}, "The rest stays as it is. Painting takes a mouse, a pen or a finger; without one, cancel and choose a mask file."), sheet,
    el("div", {class: "row"}, el("label", {class: "row brush"}, "Brush size", size), erase, button("Undo", undo), button("Clear", clear)),
    el("div", {class: "row"}, done, button("Cancel", () => dialog.close())));
  dialog.addEventListener("keydown", (event) => { if (event.key.toLowerCase() === "z" && (event.ctrlKey || event.metaKey)) undo(); });
  document.getElementById("main").append(dialog);  // goes with the page
  redraw();
  dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener("close", async () => {
    dialog.remove();
    if (dialog.returnValue !== "done") return resolve(null);
    const png = await png_of(width, height, strokes);
    if (!png) notice("This browser cannot make a mask for so large a picture.", "bad");
    resolve(png && {png, strokes});
  }));
}
