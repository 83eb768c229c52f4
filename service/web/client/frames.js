// The frames of a webcam or a video as JPEG files, for `stream`. In browsers.

import { PoseError } from "./errors.js";

const ENDINGS = { NotAllowedError: "The browser may not use the camera. Allow it beside the address.",
  NotFoundError: "There is no camera.", NotReadableError: "Another program uses the camera." };

const camera = (message) => new PoseError("camera", message);

/** The webcam, at about this size. Rejects with a `PoseError` where there is none or it is not allowed. */
export async function webcam({ width = 640, height, frameRate, quality } = {}) {
  if (!globalThis.navigator?.mediaDevices) {
    throw camera("Browsers give the camera to pages on https or localhost only.");
  }
  const ideal = Object.entries({ width, height, frameRate }).filter(([, value]) => value);
  const wanted = Object.fromEntries(ideal.map(([name, value]) => [name, { ideal: value }]));
  const media = await navigator.mediaDevices.getUserMedia({ video: wanted, audio: false }).catch((error) => {
    throw camera(ENDINGS[error.name] ?? error.message);
  });
  const frames = new VideoFrames({ srcObject: media }, { longestSide: Math.max(width, height ?? 0), quality });
  for (const track of media.getTracks()) track.onended = () => frames.stop(); // unplugged
  return frames.playing();
}

/** A video `file` (a Blob, or an address), as it plays. */
export function videoFrames(file, options = {}) {
  const src = file instanceof Blob ? URL.createObjectURL(file) : file;
  return new VideoFrames({ src, crossOrigin: "anonymous" }, options).playing();
}

/**
 * Frames at the moment that they are shown, each as {image, canvas, number, timestamp}: a JPEG file, the same as a
 * canvas, its number among all that were shown, and seconds. One at a time: those that come meanwhile are left out.
 */
export class VideoFrames {
  #longestSide;
  #quality;
  #shown = 0;
  #stopped = false;
  #wake = () => {};

  constructor(source, { longestSide = 640, quality = 0.85 } = {}) {
    this.#longestSide = longestSide; // what the detector sees; more costs time on its way
    this.#quality = quality;
    this.video = Object.assign(document.createElement("video"), { muted: true, playsInline: true, ...source });
    this.video.onended = () => this.stop();
  }

  /** Itself, when the first frame is there. */
  async playing() {
    const { video } = this;
    await new Promise((resolve, reject) => {
      video.onplaying = resolve;
      video.onerror = () => reject(camera("This browser cannot play such a video."));
      video.play().catch((error) => reject(camera(error.message)));
    }).catch((error) => { this.stop(); throw error; });
    const count = () => { this.#shown += 1; this.#wake(); if (!this.#stopped) video.requestVideoFrameCallback(count); };
    video.requestVideoFrameCallback(count);
    return this;
  }

  stop() {
    this.#stopped = true;
    this.video.pause();
    for (const track of this.video.srcObject?.getTracks() ?? []) track.stop();
    if (this.video.src.startsWith("blob:")) URL.revokeObjectURL(this.video.src);
    this.#wake();
  }

  async *[Symbol.asyncIterator]() {
    const { video } = this;
    const scale = Math.min(1, this.#longestSide / Math.max(video.videoWidth, video.videoHeight));
    const width = Math.round(video.videoWidth * scale), height = Math.round(video.videoHeight * scale);
    try {
      while (true) {
        await new Promise((resolve) => { this.#wake = resolve; if (this.#stopped) resolve(); });
        if (this.#stopped) return;
        const number = this.#shown, timestamp = performance.now() / 1000;
        const canvas = new OffscreenCanvas(width, height);
        canvas.getContext("2d").drawImage(video, 0, 0, width, height);
        const image = await canvas.convertToBlob({ type: "image/jpeg", quality: this.#quality });
        yield { image, canvas, number, timestamp };
      }
    } finally {
      this.stop();
    }
  }
}
