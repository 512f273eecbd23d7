// Runs an ONNX file in Node: node run.mjs PACKAGE MODEL FOLDER PART
// FOLDER has inputs.json, [{"name", "type", "shape", "file" or "text"}], and gets one file for each output, and times.json with the
// mean milliseconds of CPU of a run. PACKAGE is the path of onnxruntime-node or onnxruntime-web.
import { createRequire } from "node:module";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const [path, model, folder, part] = process.argv.slice(2);
const ort = createRequire(import.meta.url)(path);
if (ort.env?.wasm) ort.env.wasm.numThreads = 1;
const arrays = { float64: Float64Array, float32: Float32Array, int64: BigInt64Array, int32: Int32Array, uint8: Uint8Array };
const session = await ort.InferenceSession.create(
  ort.env?.wasm ? readFileSync(model) : model, { intraOpNumThreads: 1, interOpNumThreads: 1 });
const inputs = JSON.parse(readFileSync(join(folder, "inputs.json")));
const columns = inputs.map(({ name, type, shape, file, text }) => {
  if (type === "string") return { name, type, shape, data: text };
  const bytes = readFileSync(join(folder, file));
  const data = new arrays[type](bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength));
  return { name, type, shape, data };
});
const rows = columns[0].shape[0];
const feeds = (from, to) => Object.fromEntries(columns.map(({ name, type, shape, data }) => {
  const size = shape.slice(1).reduce((a, b) => a * b, 1);
  return [name, new ort.Tensor(type, data.slice(from * size, to * size), [to - from, ...shape.slice(1)])];
}));
const step = Number(part);
const found = {};
for (let from = 0; from < rows; from += step) {
  const result = await session.run(feeds(from, Math.min(rows, from + step)));
  for (const name of ["p_value", "alarm", "anomaly_score"]) (found[name] ??= []).push(result[name].data);
}
for (const [name, parts] of Object.entries(found)) {
  const buffers = parts.map((data) => Buffer.from(data.buffer, data.byteOffset, data.byteLength));
  writeFileSync(join(folder, `${name}.bin`), Buffer.concat(buffers));
}
const times = {};
for (const count of [1, 1000]) {
  const some = feeds(0, Math.min(count, rows));
  await session.run(some);
  const start = process.cpuUsage();
  const spent = () => { const { user, system } = process.cpuUsage(start); return (user + system) / 1000; };
  let runs = 0;
  for (; runs < 3 || spent() < 500; runs++) await session.run(some);
  times[count] = spent() / runs;
}
writeFileSync(join(folder, "times.json"), JSON.stringify(times));
