// A client of the pose service for browsers: images over REST, streams over a WebSocket.
//
//   import { PoseClient } from "/web/pose-client.js";
//   const client = new PoseClient();
//   const answer = await client.estimate(file, { max_people: 3 });
//   const stream = client.stream({ config: { detect_every: "auto" } });
//   stream.offer(jpegBlob);
//   for await (const answer of stream) console.log(answer.sequence, answer.people);

const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 10_000;
const IN_FLIGHT = 2; // frames sent and unanswered: one in work, one on its way
const KEPT_ANSWERS = 8;
// Closes after which another try may succeed: the service restarts, is full, or is out of reach.
const WORTH_IT = new Set([1001, 1006, 1011, 1012, 1013]);

/** An error of the service; `code` is of its error vocabulary, or "unreachable". */
export class PoseError extends Error {
  constructor(code, message, { status = 0, retryAfter = null, field = null, requestId = null } = {}) {
    super(message);
    this.name = "PoseError";
    Object.assign(this, { code, status, retryAfter, field, requestId });
  }
}

export class PoseClient {
  /** `base` is the address of the service, such as "https://pose.example"; "" is that of this file. */
  constructor(base = "", key = null) {
    this.base = (base || new URL("..", import.meta.url).href).replace(/\/$/, "");
    this.key = key;
  }

  /** What is loaded: models, keypoints, skeleton. */
  models() {
    return this.#json("/models");
  }

  /** The people of one image file (a Blob). Options as of `POST /pose`. */
  estimate(image, options = {}, { signal } = {}) {
    const body = new FormData();
    body.set("image", image);
    return this.#json(`/pose?${query(options)}`, { method: "POST", body, signal });
  }

  /** A stream of frames; `config` as of `/pose/stream`. By `name` balancers bring it back to its process. */
  stream({ config = {}, onState = () => {}, name = randomName() } = {}) {
    return new PoseStream(this, config, onState, name);
  }

  /** Of a camera that the service reads: the events `camera` and `pose`, as {event, data}. */
  async *camera(name, { signal } = {}) {
    // Not an EventSource, which can send no key.
    const response = await this.#fetch(`/cameras/${encodeURIComponent(name)}/events`, { signal });
    let text = "";
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    try {
      for (let part = await reader.read(); !part.done; part = await reader.read()) {
        const blocks = (text + part.value).split("\n\n");
        text = blocks.pop();
        for (const block of blocks) {
          const lines = Object.fromEntries(block.split("\n").map((line) => line.split(/: (.*)/s)));
          if (lines.data) yield { event: lines.event, data: JSON.parse(lines.data) };
        }
      }
    } finally {
      await reader.cancel().catch(() => {});
    }
  }

  headers() {
    return this.key ? { "X-API-Key": this.key } : {};
  }

  async #json(path, request) {
    return (await this.#fetch(path, request)).json();
  }

  async #fetch(path, request = {}) {
    let response;
    try {
      response = await fetch(this.base + path, { ...request, headers: this.headers() });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new PoseError("unreachable", "The service cannot be reached.");
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

/**
 * Frames in, answers out in order: an async iterator. The newest frame waits while others are in
 * flight, and an older one that waits is dropped. Goes on where the connection breaks, with the
 * same ids where the service still knows them. `onState` is called with each change: {state, error,
 * retryInMs}, where state is "connecting", "open", "waiting" or "closed".
 */
export class PoseStream {
  #client;
  #config;
  #onState;
  #name;
  #socket = null;
  #waiting = null;
  #inFlight = [];
  #answers = [];
  #wake = null;
  #sequence = 0;
  #failures = 0;
  #timer = 0;
  #closed = false;
  #error = null;

  constructor(client, config, onState, name) {
    this.#client = client;
    this.#config = { ...config };
    this.#onState = onState;
    this.#name = name;
    this.#connect();
  }

  /** Gives one frame (a Blob) and returns its number. */
  offer(image, timestamp = performance.now() / 1000) {
    this.#sequence += 1;
    this.#waiting = { image, sequence: this.#sequence, timestamp };
    this.#send();
    return this.#sequence;
  }

  /** Whether a frame offered now would be sent at once. */
  get ready() {
    return this.#socket?.readyState === WebSocket.OPEN && this.#inFlight.length < IN_FLIGHT;
  }

  close() {
    this.#end(null);
  }

  async *[Symbol.asyncIterator]() {
    try {
      while (true) {
        while (this.#answers.length) yield this.#answers.shift();
        if (this.#closed) {
          if (this.#error) throw this.#error;
          return;
        }
        await new Promise((resolve) => (this.#wake = resolve));
      }
    } finally {
      this.close();
    }
  }

  #connect() {
    const base = new URL(this.#client.base);
    base.protocol = base.protocol === "https:" ? "wss:" : "ws:";
    base.pathname = `${base.pathname.replace(/\/$/, "")}/pose/stream`;
    base.search = query({ stream: this.#name });
    const protocols = ["sdpose.v1"];
    if (this.#client.key) protocols.push(`sdpose.key.${base64url(this.#client.key)}`);
    this.#onState({ state: "connecting" });
    const socket = (this.#socket = new WebSocket(base, protocols));
    socket.onopen = () => {
      socket.send(JSON.stringify({ config: this.#config }));
      this.#onState({ state: "open" });
      this.#send();
    };
    socket.onmessage = ({ data }) => this.#take(JSON.parse(data));
    socket.onclose = (event) => this.#lost(event);
  }

  #send() {
    if (!this.ready || !this.#waiting) return;
    const { image, sequence, timestamp } = this.#waiting;
    this.#waiting = null;
    this.#inFlight.push(sequence);
    this.#socket.send(JSON.stringify({ frame: { sequence, timestamp } }));
    this.#socket.send(image);
  }

  #take(answer) {
    this.#failures = 0;
    if (answer.resume_token) this.#config.resume_token = answer.resume_token;
    this.#inFlight = this.#inFlight.filter((sequence) => sequence > answer.sequence);
    this.#answers.push(answer);
    if (this.#answers.length > KEPT_ANSWERS) this.#answers.shift();
    this.#wake?.();
    this.#send();
  }

  #lost({ code, reason }) {
    if (this.#closed) return;
    this.#inFlight = [];
    const [, name, message] = /^([a-z_]+): (.*)$/s.exec(reason) ?? [];
    const error = new PoseError(name ?? "unreachable", message ?? "The connection broke off.");
    if (!WORTH_IT.has(code)) return this.#end(error);
    const pause = Math.min(FIRST_PAUSE_MS * 2 ** this.#failures, LONGEST_PAUSE_MS);
    this.#failures += 1;
    this.#onState({ state: "waiting", error, retryInMs: pause });
    this.#timer = setTimeout(() => this.#connect(), pause);
  }

  #end(error) {
    if (this.#closed) return;
    this.#closed = true;
    this.#error = error;
    this.#waiting = null;
    clearTimeout(this.#timer);
    this.#socket?.close(1000);
    this.#wake?.();
    this.#onState({ state: "closed", error });
  }
}

/** Options that are set, as the query of a request. */
function query(options) {
  const set = Object.entries(options).filter(([, value]) => value !== "" && value != null);
  return new URLSearchParams(set.map(([name, value]) => [name, String(value)]));
}

function randomName() {
  return Array.from(crypto.getRandomValues(new Uint32Array(4)), (part) => part.toString(36)).join("-");
}

function base64url(text) {
  return btoa(text).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}
