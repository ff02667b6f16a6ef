// The page: takes an image, has the worker detect, draws and lists what was found.

// Larger images are shrunk first: the network looks at them smaller anyway.
const LONGEST_SIDE = 1600;
const COLORS = ["#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080", "#9a6324", "#800000"];

const element = (id) => document.getElementById(id);
const options = new URLSearchParams(window.location.search);
const modelUrl = new URL(options.get("model") ?? "model/model.json", window.location.href).href;
let worker, classNames, shown;

function say(text) {
  element("status").textContent = text;
}

function startWorker() {
  worker?.terminate();
  say("Loading the model …");
  element("progress").hidden = false;
  worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
  worker.onmessage = ({ data }) => answer(data);
  worker.onerror = ({ message }) => answer({ error: message || "The worker could not be started." });
  worker.postMessage({ backend: element("backend").value, modelUrl });
}

function answer(data) {
  if ("progress" in data) {
    element("progress").value = data.progress;
  } else if ("ready" in data) {
    classNames = data.classNames;
    element("progress").hidden = true;
    say(`The model is ready (${data.ready}). Choose an image.`);
    element("file").disabled = false;
    if (shown) detect(shown.bitmap);
    else if (options.has("image")) detectFrom(options.get("image"));
  } else if ("error" in data) {
    element("progress").hidden = true;
    say(`Error: ${data.error}`);
  } else {
    shown.detections = data.detections;
    const seconds = (data.milliseconds / 1000).toFixed(2);
    say(`${data.detections.length} detections of ${data.proposals} proposals in ${seconds} s.`);
    show();
    document.dispatchEvent(new CustomEvent("detected", { detail: data }));
  }
}

async function detectFrom(source) {
  try {
    const blob = typeof source === "string" ? await (await fetch(source)).blob() : source;
    await detect(await createImageBitmap(blob, { imageOrientation: "from-image" }));
  } catch {
    say("Error: this is no image that the browser can read. Choose a JPEG or PNG file.");
  }
}

async function detect(bitmap) {
  const factor = Math.min(1, LONGEST_SIDE / Math.max(bitmap.width, bitmap.height));
  const width = Math.max(1, Math.round(bitmap.width * factor));
  const height = Math.max(1, Math.round(bitmap.height * factor));
  const canvas = element("picture");
  [canvas.width, canvas.height] = [width, height];
  const context = canvas.getContext("2d", { willReadFrequently: true });
  // What is transparent is seen on white.
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0, width, height);
  const image = context.getImageData(0, 0, width, height);
  shown = { bitmap, image, detections: [] };
  show();
  say("Detecting …");
  worker.postMessage({ pixels: withoutAlpha(image.data), height, width });
}

function withoutAlpha(rgba) {
  const rgb = new Uint8Array((rgba.length / 4) * 3);
  for (let from = 0, to = 0; from < rgba.length; from += 4, to += 3) {
    rgb[to] = rgba[from];
    rgb[to + 1] = rgba[from + 1];
    rgb[to + 2] = rgba[from + 2];
  }
  return rgb;
}

// Draws and lists the detections whose scores are not below the threshold.
function show() {
  if (!shown) return;
  const threshold = Number(element("threshold").value);
  element("threshold-value").textContent = threshold.toFixed(2);
  const detections = shown.detections.filter(({ score }) => score >= threshold);
  const canvas = element("picture");
  canvas.hidden = false;
  canvas.setAttribute("aria-label", `Your image with ${detections.length} detections; the table lists them`);
  draw(canvas, detections);
  element("results").hidden = !detections.length;
  element("rows").replaceChildren(...detections.map(row));
}

function draw(canvas, detections) {
  const context = canvas.getContext("2d");
  context.putImageData(shown.image, 0, 0);
  const unit = Math.max(canvas.width, canvas.height) / 400;
  context.lineWidth = Math.max(1, unit);
  context.font = `${Math.max(10, 7 * unit)}px system-ui, sans-serif`;
  context.textBaseline = "top";
  // The best ones last, so that they are on top.
  for (const { className, score, box } of detections.toReversed()) {
    const [top, left, bottom, right] = box.map((side, i) => side * (i % 2 ? canvas.width : canvas.height));
    context.strokeStyle = context.fillStyle = color(className);
    context.strokeRect(left, top, right - left, bottom - top);
    const label = `${className} ${score.toFixed(2)}`;
    const height = Math.max(12, 9 * unit);
    context.fillRect(left, Math.max(0, top - height), context.measureText(label).width + 2 * unit, height);
    context.fillStyle = "white";
    context.fillText(label, left + unit, Math.max(0, top - height) + unit / 2);
  }
}

function row({ className, score, box }) {
  const cells = [className, score.toFixed(3), box.map((side) => side.toFixed(3)).join(", ")];
  const line = document.createElement("tr");
  for (const text of cells) line.append(Object.assign(document.createElement("td"), { textContent: text }));
  return line;
}

function color(className) {
  return COLORS[classNames.indexOf(className) % COLORS.length];
}

element("file").addEventListener("change", ({ target }) => target.files[0] && detectFrom(target.files[0]));
element("threshold").addEventListener("input", show);
element("backend").addEventListener("change", startWorker);
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dragging");
});
document.addEventListener("dragleave", () => document.body.classList.remove("dragging"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dragging");
  if (event.dataTransfer.files[0]) detectFrom(event.dataTransfer.files[0]);
});
if (options.has("backend")) element("backend").value = options.get("backend");
startWorker();
