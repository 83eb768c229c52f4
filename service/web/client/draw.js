// People drawn on a canvas. Colours are those of `sdpose predict --overlay`.

const COLOURS = { left: "#ff8a24", right: "#2896ff", middle: "#78e678" };

const sideOf = (name) => /(?:^|_)(left|right)(?:_|$)/.exec(name)?.[1] ?? "middle";

/** A limb belongs to a side when an end does and the other end is not on the other side. */
function limbSide(from, to) {
  const sides = new Set([sideOf(from), sideOf(to)].filter((side) => side !== "middle"));
  return sides.size === 1 ? [...sides][0] : "middle";
}

/**
 * Draws the people of an answer. A canvas is made the size of the answer's image and cleared; a
 * context is drawn on unchanged. Names and edges are those of `models`, the answer of `client.models()`.
 */
export function draw(
  target, answer, { keypoints, skeleton },
  { image = null, threshold = 0.3, boxes = false, ids = true, colours = COLOURS } = {},
) {
  const context = target.getContext?.("2d") ?? target, { canvas } = context;
  const { width, height } = answer.image ?? canvas;
  if (canvas === target) {
    if (canvas.width !== width) canvas.width = width;
    if (canvas.height !== height) canvas.height = height;
    context.clearRect(0, 0, width, height);
  }
  if (image) context.drawImage(image, 0, 0, width, height);
  // Thick enough to be seen where the canvas is shown smaller than it is.
  const shrunk = Math.max(1, width / (canvas.clientWidth || width));
  const unit = Math.max(2, Math.min(width, height) / 200) * shrunk;
  const limbs = skeleton.map((limb) => limb.map((index) => keypoints[index]));
  const view = { threshold, boxes, ids, colours: { ...COLOURS, ...colours } };
  for (const person of answer.people ?? []) drawPerson(context, person, limbs, view, unit);
}

function drawPerson(context, person, limbs, view, unit) {
  const shown = new Map(
    person.keypoints.filter((joint) => joint.score >= view.threshold).map((one) => [one.name, one]),
  );
  if (view.boxes) {
    const { x, y, width, height } = person.box;
    context.lineWidth = Math.max(1, unit / 2);
    context.strokeStyle = "#ebebeb";
    context.strokeRect(x, y, width, height);
  }
  context.lineWidth = unit;
  context.lineCap = "round";
  for (const [from, to] of limbs) {
    const a = shown.get(from), b = shown.get(to);
    if (!a || !b) continue;
    context.strokeStyle = view.colours[limbSide(from, to)];
    context.beginPath();
    context.moveTo(a.x, a.y);
    context.lineTo(b.x, b.y);
    context.stroke();
  }
  for (const joint of shown.values()) {
    context.beginPath();
    context.arc(joint.x, joint.y, unit * 1.3, 0, 2 * Math.PI);
    context.fillStyle = view.colours[sideOf(joint.name)];
    context.fill();
    context.lineWidth = Math.max(1, unit / 3);
    context.strokeStyle = "#141414";
    context.stroke();
  }
  if (view.ids && person.id) drawId(context, person, unit);
}

function drawId(context, person, unit) {
  const size = Math.max(14, 6 * unit), text = String(person.id);
  context.font = `600 ${size}px system-ui, sans-serif`;
  const width = context.measureText(text).width + size / 2;
  const x = Math.max(0, person.box.x), y = Math.max(0, person.box.y - size * 1.3);
  context.fillStyle = "#141414";
  context.fillRect(x, y, width, size * 1.3);
  context.fillStyle = "#fff";
  context.textBaseline = "middle";
  context.fillText(text, x + size / 4, y + size * 0.68);
}
