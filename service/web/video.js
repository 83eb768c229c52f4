// A webcam or a video file as a stream of frames, each drawn with its own people.

const LONGEST_SIDE = 640; // what the detector sees; more costs time on its way
const QUALITY = 0.85;

/**
 * Plays `subject` (kind "webcam" or "video", with its file) and calls `onAnswer(image, answer,
 * {rate, latencyMs, dropped})` for each answer and `onError` for a frame without one, until its end or `subject.stop()`.
 */
export async function streamVideo(client, subject, { config, onState, onAnswer, onError }) {
  const video = document.createElement("video");
  video.muted = video.playsInline = true;
  let stopped = false, stream = null, media = null;
  subject.stop = () => {
    stopped = true;
    stream?.close();
    media?.getTracks().forEach((track) => track.stop());
    video.pause();
    if (video.src) URL.revokeObjectURL(video.src);
  };
  try {
    if (subject.kind === "webcam") {
      if (!navigator.mediaDevices) throw new Error("Browsers give the camera to pages on https or localhost only.");
      media = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: LONGEST_SIDE } }, audio: false });
      if (stopped) return subject.stop();
      video.srcObject = media;
    } else {
      video.src = URL.createObjectURL(subject.file);
    }
    await playing(video);
    if (stopped) return;
    stream = client.stream({ config, onState });
    await exchange(video, stream, onAnswer, onError);
  } finally {
    subject.stop();
  }
}

function playing(video) {
  return new Promise((resolve, reject) => {
    video.onplaying = resolve;
    video.onerror = () => reject(new Error("This browser cannot play such a video."));
    video.play().catch(reject);
  });
}

/** Offers each frame of the video and takes the answers, until the video or the stream ends. */
async function exchange(video, stream, onAnswer, onError) {
  const sent = new Map(); // frames that wait for their answers, by number
  const times = [];
  let given = 0, answered = 0, last = 0, sending = false, ended = false;
  const scale = Math.min(1, LONGEST_SIDE / Math.max(video.videoWidth, video.videoHeight));
  const width = Math.round(video.videoWidth * scale), height = Math.round(video.videoHeight * scale);

  async function grab() {
    given += 1;
    if (sending || !stream.ready) return;
    sending = true;
    const frame = new OffscreenCanvas(width, height);
    frame.getContext("2d").drawImage(video, 0, 0, width, height);
    const image = await frame.convertToBlob({ type: "image/jpeg", quality: QUALITY });
    last = stream.offer(image);
    sent.set(last, { frame, began: performance.now() });
    sending = false;
  }
  const next = () => {
    if (ended) return;
    grab();
    video.requestVideoFrameCallback(next);
  };
  video.requestVideoFrameCallback(next);
  const finish = () => {
    ended = true;
    if (!sent.size) stream.close();
  };
  video.onended = finish;
  for (const track of video.srcObject?.getTracks() ?? []) track.onended = finish; // unplugged

  for await (const answer of stream) {
    const mine = sent.get(answer.sequence);
    for (const number of sent.keys()) if (number <= answer.sequence) sent.delete(number);
    if (answer.error) onError(answer.error);
    else if (mine) {
      answered += 1;
      const now = performance.now();
      times.push(now);
      while (times.length > 1 && now - times[0] > 2000) times.shift();
      const rate = times.length > 1 ? ((times.length - 1) * 1000) / (now - times[0]) : 0;
      onAnswer(mine.frame, answer, { rate, latencyMs: now - mine.began, dropped: given - answered - sent.size });
    }
    if (ended && !sent.size) stream.close();
  }
}
