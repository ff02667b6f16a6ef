// Loads a model from `tf-fast-rcnn export --format tfjs` and runs detection; works in browsers and in Node.js.

import { loadGraphModel } from "@tensorflow/tfjs-converter";
import * as tf from "@tensorflow/tfjs-core";

import { denseBoxes, DEFAULT_DENSE_BOXES } from "./dense_boxes.js";

const OUTPUTS = ["detection_boxes", "detection_scores", "detection_classes", "num_detections"];

export class Detector {
  // `source` is the URL of model.json or a TensorFlow.js IOHandler.
  static async load(source, onProgress) {
    return new Detector(await loadGraphModel(source, { onProgress }));
  }

  constructor(model) {
    this.model = model;
    this.metadata = model.metadata ?? {};
    this.classNames = this.metadata.class_names;
  }

  // The dense boxes used in training, or boxes of common sizes if the model was trained with other proposals. Returns a
  // Float32Array of consecutive [ymin, xmin, ymax, xmax] relative to the image.
  proposals(height, width) {
    const settings = this.metadata.proposal_settings;
    return denseBoxes(height, width, settings?.dense ?? DEFAULT_DENSE_BOXES, settings?.min_size ?? 0);
  }

  // `pixels` is an Int32Array or Uint8Array of RGB [height, width, 3]. Returns an array of {className, score, box} by
  // decreasing score, with boxes [ymin, xmin, ymax, xmax] relative to the image.
  async detect(pixels, height, width, proposals) {
    const count = proposals.length / 4;
    const inputs = {
      images: tf.tensor(Int32Array.from(pixels), [1, height, width, 3], "int32"),
      proposals: tf.tensor(proposals, [1, count, 4], "float32"),
      num_proposals: tf.tensor([count], [1], "int32"),
    };
    const names = OUTPUTS.map((name) => this.model.modelSignature.outputs[name].name);
    const outputs = await this.model.executeAsync(inputs, names);
    const [boxes, scores, classes, number] = await Promise.all(outputs.map((output) => output.data()));
    tf.dispose([outputs, Object.values(inputs)]);
    return Array.from({ length: number[0] }, (_, i) => ({
      className: this.classNames[classes[i] - 1],
      score: scores[i],
      box: Array.from(boxes.slice(4 * i, 4 * i + 4)),
    }));
  }
}
