/** A client of the SDPose service, for browsers and Node. Coordinates are pixels of the image as displayed. */

/** An image file: JPEG, PNG, WebP and others that the service reads. Node's Buffer is a Uint8Array. */
export type ImageFile = Blob | ArrayBuffer | ArrayBufferView;

/** x and y are the top left corner. */
export interface Box { x: number; y: number; width: number; height: number }

/**
 * A named place on the body, with a score from 0 to 1. `visibility` is the probability that an annotator would label
 * it, as visible or as hidden but placeable; absent if the student has no score head.
 */
export interface Keypoint { name: string; x: number; y: number; score: number; visibility?: number }

/** `id` says who it is over time; in streams only. */
export interface Person { box: Box; score: number; id?: number; keypoints: Keypoint[] }

export interface Size { width: number; height: number }

export interface ModelNames { student: string; detector: string; backend: string; device: string }

/** The people of one image. Times are milliseconds per stage, in `queue`, and in `total`. */
export interface PoseAnswer {
  people: Person[];
  image: Size;
  timings_ms: Record<string, number>;
  models: ModelNames;
  request_id: string;
}

/** What is loaded. `skeleton` holds limbs as pairs of indices into `keypoints`. */
export interface Models {
  models: ModelNames;
  keypoints: string[];
  skeleton: [number, number][];
  input_size: Size;
  cycles: { lowest: number; highest: number; served: number };
}

/** How frames are processed; unset leaves the choice to the service. */
export interface FrameOptions {
  max_people?: number;
  min_score?: number;
  min_keypoint_score?: number;
  cycles?: number;
  flip_test?: boolean;
  suppress?: boolean;
  priority?: "high" | "normal" | "low";
}

export interface ImageOptions extends FrameOptions {
  /** Milliseconds until the answer; after that the request fails. */
  deadline_ms?: number;
  /** People known already: the detector is skipped. */
  boxes?: Box[];
}

/** `boxes` holds those of each image; null has its people detected. */
export interface ImagesOptions extends Omit<ImageOptions, "boxes"> { boxes?: (Box[] | null)[] }

export interface Cancel { signal?: AbortSignal }

export type ErrorCode =
  | "invalid_image" | "unsupported_media_type" | "invalid_argument" | "payload_too_large" | "unauthenticated"
  | "permission_denied" | "not_found" | "already_exists" | "overloaded" | "deadline_exceeded" | "unavailable" | "internal"
  /** Of this client: no connection or a broken one; a runtime without WebSocket; a camera or video that does not play. */
  | "unreachable" | "unsupported" | "camera";

/** Every error of this client, except that of an aborted `signal`. */
export class PoseError extends Error {
  constructor(code: string, message: string, details?: {
    status?: number; retryAfter?: number | null; field?: string | null; requestId?: string | null;
  });
  name: "PoseError";
  code: ErrorCode;
  /** HTTP status; 0 where there is none. */
  status: number;
  /** Seconds after which another try makes sense. */
  retryAfter: number | null;
  /** The option at fault. */
  field: string | null;
  requestId: string | null;
}

export interface ClientOptions {
  apiKey?: string | null;
  fetch?: typeof globalThis.fetch;
  /** For Node before 22, such as that of the package `ws`. */
  WebSocket?: new (url: string, protocols: string[]) => any;
}

export class PoseClient {
  /** `baseUrl` such as "https://pose.example"; "" is the service that this file came from. */
  constructor(baseUrl?: string, options?: ClientOptions);
  readonly base: string;
  apiKey: string | null;
  models(cancel?: Cancel): Promise<Models>;
  estimate(image: ImageFile, options?: ImageOptions, cancel?: Cancel): Promise<PoseAnswer>;
  /** In one request, and in order: each image has its answer or its error. */
  estimate(images: ImageFile[], options?: ImagesOptions, cancel?: Cancel): Promise<(PoseAnswer | PoseError)[]>;
  stream<Frame extends StreamFrame = StreamFrame>(options?: StreamOptions<Frame>): PoseStream<Frame>;
  /** A camera that the service reads. */
  camera(name: string, cancel?: Cancel): AsyncGenerator<CameraEvent, void, void>;
}

/** An image file alone or with what belongs to it; whatever else it holds comes back with the answer. */
export type StreamFrame = ImageFile | { image: ImageFile; timestamp?: number; boxes?: Box[] };

/** As the service's `/pose/stream` has it. */
export interface StreamConfig {
  tracking?: boolean;
  smoothing?: boolean;
  detect_every?: number | "auto";
  /** `latest`: a newer frame replaces one that waits. `none`: every frame is answered. */
  drop?: "latest" | "none";
  resume_token?: string;
  options?: FrameOptions;
}

export interface StreamOptions<Frame extends StreamFrame = StreamFrame> {
  config?: StreamConfig;
  /** Sent one after the other, each when it can go out at once. */
  frames?: AsyncIterable<Frame> | Iterable<Frame>;
  reconnect?: {
    /** Milliseconds before the first try, 500; it doubles. */
    firstMs?: number;
    /** 10,000. */
    longestMs?: number;
    /** Failures in a row after which the error is thrown; unset never does. */
    attempts?: number;
    /** Maximum number of unanswered frames with `drop: "none"`, 8. */
    buffer?: number;
  };
  onState?: (state: StreamState) => void;
  /** By it a balancer brings the stream back to its process. */
  name?: string;
}

export type StreamState =
  | { state: "connecting" }
  /** `newIds`: the service no longer knew the stream, so people have other ids. */
  | { state: "open"; newIds?: true }
  | { state: "waiting"; error: PoseError; retryInMs: number }
  | { state: "closed"; error: PoseError | null };

/** `dropped` counts the frames without an answer since the one before; `frame` is what was sent. */
export type StreamAnswer<Frame extends StreamFrame = StreamFrame> = {
  sequence: number;
  timestamp?: number;
  dropped: number;
  resume_token?: string;
  frame: Frame;
} & ((PoseAnswer & { error?: undefined }) | { error: PoseError; people?: undefined; image?: undefined });

export class PoseStream<Frame extends StreamFrame = StreamFrame> implements AsyncIterable<StreamAnswer<Frame>> {
  constructor(client: PoseClient, options?: StreamOptions<Frame>);
  /** Resolves when the next frame can go out at once: true, or false where the stream is over. */
  send(frame: Frame): Promise<boolean>;
  get ready(): boolean;
  /** No more frames come: the iteration ends when all have their answers. */
  end(): void;
  /** Ends at once. */
  close(): void;
  [Symbol.asyncIterator](): AsyncGenerator<StreamAnswer<Frame>, void, void>;
}

export type CameraEvent =
  | { event: "camera"; data: { name: string; state: "connecting" | "live" | "broken" | "ended"; [field: string]: unknown } }
  | { event: "pose"; data: Omit<StreamAnswer, "frame"> };

export interface FrameSettings {
  /** Of the frames, in pixels; 640. */
  longestSide?: number;
  /** Of the JPEG files, 0 to 1; 0.85. */
  quality?: number;
}

export interface VideoFrame { image: Blob; canvas: OffscreenCanvas; number: number; timestamp: number }

/** Browsers only. Rejects with a `PoseError` of the code "camera". */
export function webcam(options?: {
  width?: number; height?: number; frameRate?: number; quality?: number;
}): Promise<VideoFrames>;

/** Browsers only. A file or an address, as it plays. */
export function videoFrames(file: Blob | string, options?: FrameSettings): Promise<VideoFrames>;

/** Frames as they are shown, at the reader's pace. */
export class VideoFrames implements AsyncIterable<VideoFrame> {
  private constructor();
  readonly video: HTMLVideoElement;
  stop(): void;
  [Symbol.asyncIterator](): AsyncGenerator<VideoFrame, void, void>;
}

export interface DrawOptions {
  /** Drawn under the people. */
  image?: CanvasImageSource | null;
  /** Joints from this score; 0.3. */
  threshold?: number;
  /** false. */
  boxes?: boolean;
  /** true. */
  ids?: boolean;
  /** By the words left and right in the names of keypoints. */
  colours?: { left?: string; right?: string; middle?: string };
}

/** A canvas takes the size of the answer's image and is cleared; a context is drawn on unchanged. */
export function draw(
  target: HTMLCanvasElement | OffscreenCanvas | CanvasRenderingContext2D | OffscreenCanvasRenderingContext2D,
  answer: { people?: Person[]; image?: Size },
  models: Pick<Models, "keypoints" | "skeleton">,
  options?: DrawOptions,
): void;
