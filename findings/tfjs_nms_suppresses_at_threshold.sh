#!/usr/bin/env bash
# TensorFlow.js 4.22.0 suppresses boxes whose IoU equals the threshold: with a threshold of 0, boxes that do not touch.
# Packages: @tensorflow/tfjs-core 4.22.0, @tensorflow/tfjs-backend-cpu 4.22.0
# Expected: TensorFlow's rule, whose op of the same name this implements: IoU above the threshold. A threshold of 0 then
#   keeps boxes that do not overlap.
# Seen: of three boxes far from each other one is left, and of two equal boxes at a threshold of 1 (TensorFlow: both) too.
set -eu
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place"
npm install --silent --no-audit --no-fund @tensorflow/tfjs-core@4.22.0 @tensorflow/tfjs-backend-cpu@4.22.0
cat > run.mjs <<'JAVASCRIPT'
import assert from "node:assert";
import "@tensorflow/tfjs-backend-cpu";
import * as tf from "@tensorflow/tfjs-core";

const kept = (boxes, threshold) => {
  const scores = boxes.map((_, i) => 0.9 - i / 10);
  return Array.from(tf.image.nonMaxSuppression(tf.tensor2d(boxes), tf.tensor1d(scores), 9, threshold).dataSync());
};
const apart = kept([[0, 0, 0.1, 0.1], [0.4, 0.4, 0.5, 0.5], [0.8, 0.8, 0.9, 0.9]], 0);
const equal = kept([[0, 0, 0.5, 0.5], [0, 0, 0.5, 0.5]], 1);
console.log("apart, threshold 0:", apart, "equal, threshold 1:", equal);
assert.deepStrictEqual(apart, [0]);
assert.deepStrictEqual(equal, [0]);
JAVASCRIPT
node run.mjs 2> "$place/errors" || { cat "$place/errors"; exit 1; }
