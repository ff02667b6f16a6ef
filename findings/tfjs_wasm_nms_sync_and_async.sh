#!/usr/bin/env bash
# In TensorFlow.js 4.22.0's WebAssembly backend, nonMaxSuppression and nonMaxSuppressionAsync keep different boxes.
# Packages: @tensorflow/tfjs-core, @tensorflow/tfjs-backend-cpu, @tensorflow/tfjs-backend-wasm 4.22.0
# Expected: the same boxes: one backend, one set of inputs, and the documentation calls one the asynchronous version of
#   the other.
# Seen: for two boxes whose IoU is 0.7, and a threshold of 0.7, the synchronous function keeps one box and the
#   asynchronous function both. The first runs in WebAssembly, with the threshold and the IoU in 32 bits; the second is
#   not a kernel of the backend but JavaScript on downloaded values, in 64 bits.
set -eu
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place"
npm install --silent --no-audit --no-fund @tensorflow/tfjs-core@4.22.0 @tensorflow/tfjs-backend-cpu@4.22.0 \
  @tensorflow/tfjs-backend-wasm@4.22.0
cat > run.mjs <<'JAVASCRIPT'
import assert from "node:assert";
import "@tensorflow/tfjs-backend-cpu";
import { setWasmPaths } from "@tensorflow/tfjs-backend-wasm";
import * as tf from "@tensorflow/tfjs-core";

setWasmPaths("node_modules/@tensorflow/tfjs-backend-wasm/dist/");
await tf.setBackend("wasm");
const boxes = tf.tensor2d([[0, 0, 1, 1], [0, 0, 0.7, 1]]);
const scores = tf.tensor1d([0.9, 0.8]);
const kept = Array.from(await tf.image.nonMaxSuppression(boxes, scores, 9, 0.7).data());
const keptAsync = Array.from(await (await tf.image.nonMaxSuppressionAsync(boxes, scores, 9, 0.7)).data());
console.log(tf.getBackend(), "sync:", kept, "async:", keptAsync);
assert.deepStrictEqual(kept, [0]);
assert.deepStrictEqual(keptAsync, [0, 1]);
JAVASCRIPT
node run.mjs 2> "$place/errors" || { cat "$place/errors"; exit 1; }
