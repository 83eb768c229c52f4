import { invalid } from "./errors.js";

/** Options that are set, as the query of a request. */
export function query(options) {
  const set = Object.entries(options).filter(([, value]) => value !== "" && value != null);
  return new URLSearchParams(set.map(([name, value]) => [name, String(value)]));
}

/** An image file, checked: a Blob, an ArrayBuffer or a view of one, such as Node's Buffer. */
export function imageFile(image) {
  if (image instanceof Blob || image instanceof ArrayBuffer || ArrayBuffer.isView(image)) return image;
  throw invalid("image", `expected a Blob, File, ArrayBuffer, Uint8Array or Buffer, not ${Object.prototype.toString.call(image)}`);
}
