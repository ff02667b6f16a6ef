// Runs the model in a worker, so that the page stays responsive. Incoming messages: {backend, modelUrl} once, then
// {pixels, height, width} for each image. Outgoing messages: {progress}, {ready}, {detections, ...} or {error}.

import "@tensorflow/tfjs-backend-cpu";
import { setWasmPaths } from "@tensorflow/tfjs-backend-wasm";
import "@tensorflow/tfjs-backend-webgl";
import "@tensorflow/tfjs-backend-webgpu";
import * as tf from "@tensorflow/tfjs-core";

import { Detector } from "./detector.js";

let detector;

// Starts the first available backend. WebGL is only used with float32, because float16 would move RoIs to different
// feature-map cells.
async function start(wanted) {
  setWasmPaths(new URL("./", self.location.href).href);
  for (const backend of wanted === "auto" ? ["webgpu", "webgl", "wasm", "cpu"] : [wanted]) {
    try {
      const exact = backend !== "webgl" || tf.env().getBool("WEBGL_RENDER_FLOAT32_CAPABLE");
      if (exact && (await tf.setBackend(backend))) return tf.getBackend();
    } catch {
      // Try the next backend.
    }
  }
  throw new Error(`The backend ${wanted} does not start in this browser; choose another one.`);
}

async function load({ backend, modelUrl }) {
  const started = await start(backend);
  detector = await Detector.load(modelUrl, (progress) => self.postMessage({ progress }));
  self.postMessage({ ready: started, classNames: detector.classNames });
}

async function detect({ pixels, height, width }) {
  const begin = performance.now();
  const proposals = detector.proposals(height, width);
  const detections = await detector.detect(pixels, height, width, proposals);
  const milliseconds = performance.now() - begin;
  self.postMessage({ detections, milliseconds, proposals: proposals.length / 4 });
}

self.onmessage = async ({ data }) => {
  try {
    await ("modelUrl" in data ? load(data) : detect(data));
  } catch (error) {
    self.postMessage({ error: error.message });
  }
};
