// The page: what is looked at, how it is shown, and what went wrong.

import { PoseClient, PoseError, draw, videoFrames, webcam } from "./client/index.js";
import { asCurl, asJavaScript, asPython } from "./snippets.js";

const $ = (id) => document.getElementById(id);
const form = $("form"), canvas = $("canvas");
const client = new PoseClient();
/** What is loaded: names and edges for the drawing. */
let models = null;
/** What is looked at now: {kind: "image" | "video" | "webcam", file, stop}; one at a time. */
let subject = null;
/** What is on the canvas: {image, answer}. */
let shown = null;

const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

function options() {
  const given = [...new FormData(form)].filter(([, value]) => value !== "");
  return Object.fromEntries(given.map(([name, value]) => [name, value === "true" || Number(value)]));
}

const view = () => ({ threshold: Number($("min-score").value), boxes: $("boxes").checked, ids: $("ids").checked });

function say(text) {
  $("status").textContent = text;
}

function blank() {
  shown = null;
  canvas.hidden = $("legend").hidden = true;
  $("hint").hidden = false;
  $("answer").textContent = "";
  for (const id of ["save-json", "save-picture"]) $(id).disabled = true;
}

function fail(error, retry) {
  blank(); // an old image under an error would look like its result
  say("");
  const after = error.retryAfter ? ` Worth another try in ${error.retryAfter} s.` : "";
  const id = error.requestId ? ` (request ${error.requestId})` : "";
  const reasons = {
    unauthenticated: "This service needs an API key. Enter it under Access.",
    permission_denied: "This API key does not open that. Enter another under Access.",
    overloaded: `The service is busy.${after}`,
    unavailable: `The service is not ready: ${error.message}.${after}`,
  };
  $("reason").textContent = reasons[error.code] ?? `${error.message}${id}`;
  $("trouble").hidden = false;
  $("retry").onclick = retry;
  if (["unauthenticated", "permission_denied"].includes(error.code)) $("key").focus();
}

function clearTrouble() {
  $("trouble").hidden = true;
}

function show(image, answer) {
  shown = { image, answer };
  canvas.hidden = $("legend").hidden = false;
  $("hint").hidden = true;
  for (const id of ["save-json", "save-picture"]) $(id).disabled = false;
  redraw();
  const count = answer.people.length;
  canvas.setAttribute("aria-label", `${people(count)} found, with their joints drawn`);
  if ($("answer").closest("details").open) writeAnswer();
}

function redraw() {
  if (shown) draw(canvas, shown.answer, models, { image: shown.image, ...view() });
}

const writeAnswer = () => ($("answer").textContent = shown ? JSON.stringify(shown.answer, null, 1) : "");
const people = (count) => `${count} ${count === 1 ? "person" : "people"}`;

/** Returns when the models are loaded; the page may be opened before they are. */
async function ready() {
  for (let first = true; ; first = false) {
    try {
      models = await client.models();
      const { student, detector, backend, device } = models.models;
      $("models").textContent = `${student} · ${detector} · ${backend} on ${device}`;
      offerCycles(models.cycles);
      clearTrouble();
      if (!first) say("");
      return;
    } catch (error) {
      if (!["unavailable", "unreachable"].includes(error.code)) throw error;
      say(error.code === "unavailable" ? "The models are loading …" : "The service cannot be reached; trying again …");
      await wait(1000);
    }
  }
}

function offerCycles({ lowest, highest, served }) {
  const select = form.cycles, before = select.value;
  const numbers = Array.from({ length: highest - lowest + 1 }, (_, index) => String(lowest + index));
  const choices = [["", `as served (${served})`], ...numbers.map((one) => [one, one])];
  select.replaceChildren(...choices.map(([value, text]) => new Option(text, value)));
  select.value = before;
  select.closest("label").hidden = lowest === highest;
}

const begin = () => ready().catch((error) => fail(error, begin));

/** Makes `next` the subject in place of the one before. */
function look(next) {
  subject?.stop?.();
  subject = next;
  clearTrouble();
  blank();
  $("stop").hidden = next.kind === "image";
  for (const id of ["curl", "python", "javascript"]) $(id).disabled = false;
  $("curl").hidden = next.kind !== "image"; // it sends files, not frames
  run(next);
}

async function run(mine) {
  clearTrouble();
  mine.stop?.();
  try {
    await (mine.kind === "image" ? estimate(mine) : follow(mine));
  } catch (error) {
    if (mine !== subject || error.name === "AbortError") return;
    const known = error instanceof PoseError ? error : new PoseError("page", error.message);
    fail(known, () => run(mine));
  }
}

async function estimate(mine) {
  const aborting = new AbortController();
  mine.stop = () => aborting.abort();
  say("Looking …");
  const started = performance.now();
  if (!models) await ready();
  const answer = await client.estimate(mine.file, options(), { signal: aborting.signal });
  const ms = performance.now() - started;
  const image = await createImageBitmap(mine.file).catch(() => null);
  if (mine !== subject) return;
  const summary = `${people(answer.people.length)} · ${answer.timings_ms.total.toFixed(0)} ms in the service, ${ms.toFixed(0)} ms in all`;
  if (!image) throw new PoseError("page", `${summary}, but this browser cannot show such an image.`);
  show(image, answer);
  say(summary);
}

async function follow(mine) {
  let stopped = false, frames = null, stream = null;
  mine.stop = () => { stopped = true; stream?.close(); frames?.stop(); };
  if (!models) await ready();
  say(mine.kind === "webcam" ? "Waiting for the camera …" : "Opening the video …");
  frames = await (mine.kind === "webcam" ? webcam() : videoFrames(mine.file));
  if (stopped) return frames.stop();
  stream = client.stream({ config: { options: options() }, frames, onState: ({ state, error, retryInMs }) => {
    if (state === "waiting") say(`${error.message} Next try in ${(retryInMs / 1000).toFixed(1)} s.`);
  } });
  try {
    await showAll(stream, mine);
  } finally {
    frames.stop();
  }
  if (!stopped) $("stop").hidden = true; // else another one may run, with other options
}

async function showAll(stream, mine) {
  const times = [];
  let answered = 0;
  for await (const { frame, ...answer } of stream) {
    if (mine !== subject) return;
    if (answer.error) { say(`A frame has no answer: ${answer.error.message}`); continue; }
    const now = performance.now();
    answered += 1;
    times.push(now);
    while (times.length > 1 && now - times[0] > 2000) times.shift();
    const rate = times.length > 1 ? ((times.length - 1) * 1000) / (now - times[0]) : 0;
    show(frame.canvas, answer);
    say(`${people(answer.people.length)} · ${rate.toFixed(1)} answers a second · ${(now - frame.timestamp * 1000).toFixed(0)} ms · ${frame.number - answered} dropped`);
  }
}

function choose(file) {
  if (!file) return;
  look({ kind: file.type.startsWith("video/") ? "video" : "image", file, name: file.name || "image.jpg" });
}

async function example() {
  const response = await fetch(new URL("example.jpg", import.meta.url));
  choose(new File([await response.blob()], "example.jpg", { type: "image/jpeg" }));
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    say("Copied.");
  } catch { // no clipboard without https or localhost, or not allowed
    $("copied").hidden = false;
    $("copied").value = text;
    $("copied").select();
    say("Copy it from the field below.");
  }
}

function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

const stem = () => (subject.name ?? subject.kind).replace(/\.[^.]*$/, "");
const request = () => ({ kind: subject.kind, name: subject.name, options: options(), origin: client.base, key: client.apiKey });

$("choose").onclick = () => $("file").click();
$("file").onchange = () => { choose($("file").files[0]); $("file").value = ""; };
$("webcam").onclick = () => look({ kind: "webcam" });
$("example").onclick = () => example().catch(() => fail(new PoseError("page", "The example cannot be loaded."), example));
$("stop").onclick = () => { subject?.stop?.(); $("stop").hidden = true; say("Stopped."); };
$("curl").onclick = () => copy(asCurl(request()));
$("python").onclick = () => copy(asPython(request()));
$("javascript").onclick = () => copy(asJavaScript(request()));
$("save-json").onclick = () => save(new Blob([JSON.stringify(shown.answer, null, 1)], { type: "application/json" }), `${stem()}.json`);
$("save-picture").onclick = () => canvas.toBlob((blob) => save(blob, `${stem()}-poses.png`), "image/png");
$("answer").closest("details").ontoggle = writeAnswer;
for (const id of ["min-score", "boxes", "ids"]) {
  $(id).oninput = () => {
    $("min-shown").textContent = Number($("min-score").value).toFixed(2);
    redraw();
  };
}
form.onsubmit = (event) => event.preventDefault();
form.onchange = (event) => {
  if (event.target.id === "key") {
    client.apiKey = $("key").value || null;
    models = null; // asks again, with this key
    if (!subject) begin();
  } else if (!event.target.name || !event.target.reportValidity()) return;
  if (subject) run(subject);
};
const stage = $("stage");
stage.ondragover = (event) => { event.preventDefault(); stage.classList.add("over"); };
stage.ondragleave = () => stage.classList.remove("over");
stage.ondrop = (event) => {
  event.preventDefault();
  stage.classList.remove("over");
  choose(event.dataTransfer.files[0]);
};
document.onpaste = (event) => choose(event.clipboardData?.files[0]);
begin();
