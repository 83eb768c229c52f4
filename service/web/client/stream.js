import { PoseError, withError } from "./errors.js";
import { imageFile, query } from "./requests.js";

const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 10_000;
const IN_FLIGHT = 2; // frames sent and unanswered: one in work, one on its way
const BUFFER = 8;
const BY_CLOSE = { 1008: "invalid_argument", 1009: "payload_too_large" }; // without a reason of the service
const OPEN = 1; // readyState of a WebSocket
// Closes and errors after which another try may succeed: the service restarts, is full, or is out of reach.
const WORTH_IT = new Set([1001, 1006, 1011, 1012, 1013]);
const WORTH_IT_UNOPENED = new Set(["unreachable", "unavailable", "overloaded", "deadline_exceeded", "internal"]);

/**
 * Frames in, answers out in order: an async iterator. Goes on where the connection breaks, with the
 * same ids where the service still knows them. Each frame is answered once, or counted in the
 * `dropped` of the next answer; with `config.drop` "none" all are answered.
 */
export class PoseStream {
  #client;
  #config;
  #reconnect;
  #onState;
  #name;
  #socket = null;
  #waiting = []; // {number, frame, about, image}: not sent; one at most where the latest wins
  #unanswered = []; // the same: sent
  #answers = []; // not yet read by the caller
  #listeners = [];
  #sent = 0;
  #read = 0;
  #failures = 0;
  #timer = 0;
  #ended = false;
  #closed = false;
  #error = null;

  constructor(client, { config = {}, frames, reconnect = {}, onState = () => {}, name = randomName() } = {}) {
    this.#client = client;
    this.#config = { ...config };
    this.#reconnect = { firstMs: FIRST_PAUSE_MS, longestMs: LONGEST_PAUSE_MS, attempts: Infinity, buffer: BUFFER, ...reconnect };
    this.#onState = onState;
    this.#name = name;
    if (!client.WebSocket) {
      throw new PoseError("unsupported", "This runtime has no WebSocket, as Node before 22: pass one, "
        + "new PoseClient(url, { WebSocket }).");
    }
    this.#connect();
    if (frames) this.#sendAll(frames);
  }

  /**
   * Sends an image file, or {image, timestamp, boxes, ...}. Resolves when another can go out at once:
   * true, or false if the stream is over. Without waiting, a newer frame
   * replaces one that was not sent yet, except with `config.drop` "none".
   */
  send(frame) {
    const { image = frame, timestamp = performance.now() / 1000, boxes } = frame ?? {};
    imageFile(image);
    if (this.#closed || this.#ended) return Promise.resolve(false);
    this.#sent += 1;
    this.#wait([{ number: this.#sent, frame, image, about: { sequence: this.#sent, timestamp, boxes } }]);
    this.#push();
    return this.#room();
  }

  /** Whether a frame sent now would go out at once. */
  get ready() {
    const [held, most] = this.#keepsAll ? [this.#unanswered.length + this.#answers.length, this.#reconnect.buffer]
      : [this.#unanswered.length, IN_FLIGHT];
    return this.#socket?.readyState === OPEN && held < most;
  }

  /** No more frames come: the iteration ends when all have their answers. */
  end() {
    this.#ended = true;
    if (!this.#waiting.length && !this.#unanswered.length) this.#finish(this.#error);
  }

  close() {
    this.#finish(null);
  }

  async *[Symbol.asyncIterator]() {
    try {
      while (true) {
        while (this.#answers.length) {
          const answer = this.#answers.shift();
          const dropped = answer.sequence - this.#read - 1;
          this.#read = answer.sequence;
          this.#push();
          this.#changed();
          yield { ...answer, dropped };
        }
        if (this.#closed) {
          if (this.#error) throw this.#error;
          return;
        }
        await this.#change();
      }
    } finally {
      this.close();
    }
  }

  get #keepsAll() {
    return this.#config.drop === "none";
  }

  async #sendAll(frames) {
    try {
      for await (const frame of frames) if (!(await this.send(frame))) break;
    } catch (error) {
      this.#error = error; // thrown to the reader, after the answers
    }
    this.end();
  }

  async #room() {
    while (!this.#closed && !this.ready) await this.#change();
    return !this.#closed;
  }

  #change() {
    return new Promise((resolve) => this.#listeners.push(resolve));
  }

  #changed() {
    for (const resolve of this.#listeners.splice(0)) resolve();
  }

  #wait(entries) {
    this.#waiting.push(...entries);
    if (!this.#keepsAll) this.#waiting = this.#waiting.slice(-1);
  }

  #connect() {
    const url = new URL(this.#client.base.replace(/^http/, "ws"));
    url.pathname = `${url.pathname.replace(/\/$/, "")}/pose/stream`;
    url.search = query({ stream: this.#name });
    this.#onState({ state: "connecting" });
    let opened = false;
    try {
      const { key, WebSocket } = this.#client;
      const socket = new WebSocket(url.href, ["sdpose.v1", ...(key ? [`sdpose.key.${base64url(key)}`] : [])]);
      this.#socket = socket;
      socket.onopen = () => {
        opened = true;
        socket.send(JSON.stringify({ config: this.#config }));
        this.#onState({ state: "open" });
        this.#push();
        this.#changed();
      };
      socket.onmessage = ({ data }) => this.#take(JSON.parse(data));
      socket.onclose = (event) => {
        if (this.#socket === socket) this.#lost(event, opened);
      };
      // Node 20 closes nothing that did not open.
      socket.onerror = () => opened || socket.onclose({ code: 1006, reason: "" });
    } catch (error) { // such as of a page on https, for a service that is not
      this.#finish(error instanceof PoseError ? error : new PoseError("unreachable", `The stream cannot open: ${error.message}`));
    }
  }

  #push() {
    while (this.ready && this.#waiting.length) {
      const entry = this.#waiting.shift();
      this.#unanswered.push(entry);
      this.#socket.send(JSON.stringify({ frame: entry.about }));
      this.#socket.send(entry.image);
    }
  }

  #take(answer) {
    this.#failures = 0;
    const { resume_token: known } = this.#config;
    if (answer.resume_token) {
      this.#config.resume_token = answer.resume_token;
      if (known && known !== answer.resume_token) this.#onState({ state: "open", newIds: true });
    }
    const own = this.#unanswered.find(({ number }) => number === answer.sequence);
    this.#unanswered = this.#unanswered.filter(({ number }) => number > answer.sequence);
    this.#answers.push({ ...withError(answer), frame: own?.frame });
    if (!this.#keepsAll) this.#answers = this.#answers.slice(-BUFFER);
    this.#push();
    if (this.#ended) this.end();
    this.#changed();
  }

  async #lost({ code, reason }, opened) {
    if (this.#closed) return;
    this.#socket = null;
    this.#wait(this.#unanswered.splice(0).concat(this.#waiting.splice(0)));
    const [, name, message] = /^([a-z_]+): (.*)$/s.exec(reason) ?? [];
    const field = name === "invalid_argument" ? message.split(": ")[0] : null;
    let error = new PoseError(name ?? BY_CLOSE[code] ?? "unreachable", message ?? "The connection broke off.", { field });
    if (!opened) { // runtimes hide why; the answer to a request has it
      error = await this.#client.models().then(
        () => new PoseError("unreachable", "The service answers, but opens no WebSocket; perhaps a proxy is in its way."),
        (failure) => failure,
      );
    }
    if (this.#closed) return;
    this.#failures += 1;
    const { firstMs, longestMs, attempts } = this.#reconnect;
    const worthIt = opened ? WORTH_IT.has(code) : WORTH_IT_UNOPENED.has(error.code);
    if (!worthIt || this.#failures >= attempts) return this.#finish(error);
    const pause = Math.min(Math.max(firstMs * 2 ** (this.#failures - 1), (error.retryAfter ?? 0) * 1000), longestMs);
    this.#onState({ state: "waiting", error, retryInMs: pause });
    this.#timer = setTimeout(() => this.#connect(), pause);
  }

  #finish(error) {
    if (this.#closed) return;
    this.#closed = true;
    this.#error = error;
    this.#waiting = [];
    clearTimeout(this.#timer);
    this.#socket?.close(1000);
    this.#changed();
    this.#onState({ state: "closed", error });
  }
}

function randomName() {
  return Array.from(crypto.getRandomValues(new Uint32Array(4)), (part) => part.toString(36)).join("-");
}

function base64url(text) {
  return btoa(text).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}
