// Copies the WebAssembly files of TensorFlow.js to dist/, from where the worker loads them.
import { copyFileSync, readdirSync } from "node:fs";

const from = new URL("node_modules/@tensorflow/tfjs-backend-wasm/dist/", import.meta.url);
for (const name of readdirSync(from).filter((name) => name.endsWith(".wasm"))) {
  copyFileSync(new URL(name, from), new URL(`dist/${name}`, import.meta.url));
}
