// Classify a picture in Node.js, with onnxruntime-node.
//
//     torchclas export EfficientNet_lite0 --to onnx --input uint8 -o model.onnx
//     python -c "import onnx; print({p.key: p.value for p in onnx.load('model.onnx').metadata_props}['labels'])" > labels.txt
//     npm install --ignore-scripts onnxruntime-node sharp
//     node classify_onnxruntime.mjs model.onnx labels.txt photo.jpg
//
// A model that was exported with `--input uint8` takes the pixels of pictures of any size and prepares them itself. It
// has the names of its classes with it, but onnxruntime-node does not give them: labels.txt has one on each line. The
// scripts that npm is told to ignore would fetch CUDA's part of the runtime, several hundred MB.

import { readFileSync } from "node:fs";
import { InferenceSession, Tensor } from "onnxruntime-node";
import sharp from "sharp";

const [model, names, photo] = process.argv.slice(2);
const session = await InferenceSession.create(model);
const labels = readFileSync(names, "utf8").split(/\r?\n/);

const picture = sharp(photo).rotate(); // as the camera was held
const { data, info } = await picture.toColourspace("srgb").removeAlpha().raw().toBuffer({ resolveWithObject: true });
const images = new Tensor("uint8", data, [1, info.height, info.width, 3]);

const logits = Array.from((await session.run({ images })).logits.data);
const largest = Math.max(...logits);
const weights = logits.map((logit) => Math.exp(logit - largest));
const sum = weights.reduce((total, weight) => total + weight);
const best = logits.map((_, index) => index).sort((one, other) => logits[other] - logits[one]);
for (const index of best.slice(0, 5)) {
  console.log((weights[index] / sum).toFixed(6), labels[index]);
}
