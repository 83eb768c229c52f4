// A client of the pose service for browsers and Node: images over REST, streams over a WebSocket.

import { PoseError, broken, invalid, unreachable, withError } from "./errors.js";
import { imageFile, query } from "./requests.js";
import { PoseStream } from "./stream.js";

export { draw } from "./draw.js";
export { VideoFrames, videoFrames, webcam } from "./frames.js";
export { PoseError, PoseStream };

const OF_AN_IMAGE = new Set(["invalid_image", "unsupported_media_type", "payload_too_large", "internal"]);

export class PoseClient {
  /** `baseUrl` such as "https://pose.example"; "" is the service that this file came from. */
  constructor(baseUrl = "", { apiKey = null, fetch = globalThis.fetch, WebSocket = globalThis.WebSocket } = {}) {
    const given = baseUrl || new URL("../..", import.meta.url).href;
    if (!/^https?:\/\/[^/]/.test(given) || !URL.canParse(given)) {
      throw invalid("baseUrl", `expected an address such as "http://localhost:8000", not "${given}"`);
    }
    this.base = given.replace(/\/$/, "");
    this.apiKey = apiKey;
    this.fetch = (...request) => fetch(...request); // browsers need it called without an object
    this.WebSocket = WebSocket;
  }

  /** What is loaded: models, keypoints, skeleton. */
  models({ signal } = {}) {
    return this.#json("/models", { signal });
  }

  /** The people of one image; of a list of images, each with its answer or its `PoseError`. */
  async estimate(image, options = {}, { signal } = {}) {
    if (!Array.isArray(image)) return this.#pose([image], options, signal);
    if (image.length === 0) return [];
    if (image.length > 1) return (await this.#pose(image, options, signal)).results.map((one) => withError(one).error ?? one);
    // One image is answered outside of a list, and its error as that of the request.
    const [boxes = null] = options.boxes ?? [];
    return [await this.#pose(image, { ...options, boxes }, signal).catch((error) => {
      if (OF_AN_IMAGE.has(error.code)) return error;
      throw error;
    })];
  }

  /** Frames in, answers out, in order, on and on where the connection breaks. */
  stream(options) {
    return new PoseStream(this, options);
  }

  /** Of a camera that the service reads: the events `camera` and `pose`, as {event, data}. */
  async *camera(name, { signal } = {}) {
    // Not an EventSource, which can send no key.
    const response = await this.#fetch(`/cameras/${encodeURIComponent(name)}/events`, { signal });
    let text = "";
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    const read = () => reader.read().catch((error) => { throw signal?.aborted ? error : broken(); });
    try {
      for (let part = await read(); !part.done; part = await read()) {
        const blocks = (text + part.value).split("\n\n");
        text = blocks.pop();
        for (const block of blocks) {
          const lines = Object.fromEntries(block.split("\n").map((line) => line.split(/: (.*)/s)));
          if (lines.data) yield { event: lines.event, data: withError(JSON.parse(lines.data)) };
        }
      }
    } finally {
      await reader.cancel().catch(() => {});
    }
  }

  /** The key, checked: headers hold no other letters. */
  get key() {
    if (/[^\x21-\x7e]/.test(this.apiKey ?? "")) throw invalid("apiKey", "expected printable ASCII without spaces");
    return this.apiKey;
  }

  #pose(images, { boxes, ...options }, signal) {
    const body = new FormData();
    for (const image of images) body.append("image", new Blob([imageFile(image)]), "image");
    if (boxes) body.set("boxes", JSON.stringify(boxes));
    return this.#json(`/pose?${query(options)}`, { method: "POST", body, signal });
  }

  async #json(path, request) {
    const response = await this.#fetch(path, request);
    try {
      return await response.json();
    } catch (error) {
      throw request.signal?.aborted ? error : broken();
    }
  }

  async #fetch(path, request) {
    const headers = this.key ? { "X-API-Key": this.key } : {};
    let response;
    try {
      response = await this.fetch(this.base + path, { ...request, headers });
    } catch (error) {
      throw request.signal?.aborted ? error : unreachable(error, this.base);
    }
    if (response.ok) return response;
    const problem = await response.json().catch(() => ({})); // a proxy's page is no JSON
    const after = Number.parseFloat(response.headers.get("Retry-After"));
    throw new PoseError(
      problem.code ?? (response.status >= 500 ? "unavailable" : "internal"),
      problem.detail ?? `An answer of status ${response.status}, perhaps of a proxy.`,
      {
        status: response.status,
        retryAfter: Number.isFinite(after) ? after : null,
        field: problem.field ?? null,
        requestId: problem.request_id ?? null,
      },
    );
  }
}
