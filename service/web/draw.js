// People drawn on a canvas. Colours are those of `sdpose predict --overlay`.

export const COLOURS = { left: "#ff8a24", right: "#2896ff", middle: "#78e678" };

const sideOf = (name) => /^(left|right)_/.exec(name)?.[1] ?? "middle";

/** A limb belongs to a side when an end does and the other end is not on the other side. */
function limbSide(from, to) {
  const sides = new Set([sideOf(from), sideOf(to)].filter((side) => side !== "middle"));
  return sides.size === 1 ? [...sides][0] : "middle";
}

/**
 * Draws image and people. `view` is what of them: minScore of joints, boxes, ids. Only the drawing
 * depends on it. `skeleton` holds pairs of names.
 */
export function drawPeople(canvas, image, size, people, skeleton, view) {
  if (canvas.width !== size.width || canvas.height !== size.height) {
    canvas.width = size.width;
    canvas.height = size.height;
  }
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0, size.width, size.height);
  // Thick enough to be seen where the canvas is shown smaller than it is.
  const shrunk = Math.max(1, size.width / (canvas.clientWidth || size.width));
  const unit = Math.max(2, Math.min(size.width, size.height) / 200) * shrunk;
  for (const person of people) drawPerson(context, person, skeleton, view, unit);
}

function drawPerson(context, person, skeleton, view, unit) {
  const shown = new Map(
    person.keypoints.filter((joint) => joint.score >= view.minScore).map((one) => [one.name, one]),
  );
  if (view.boxes) {
    const { x, y, width, height } = person.box;
    context.lineWidth = Math.max(1, unit / 2);
    context.strokeStyle = "#ebebeb";
    context.strokeRect(x, y, width, height);
  }
  context.lineWidth = unit;
  context.lineCap = "round";
  for (const [from, to] of skeleton) {
    const a = shown.get(from), b = shown.get(to);
    if (!a || !b) continue;
    context.strokeStyle = COLOURS[limbSide(from, to)];
    context.beginPath();
    context.moveTo(a.x, a.y);
    context.lineTo(b.x, b.y);
    context.stroke();
  }
  for (const joint of shown.values()) {
    context.beginPath();
    context.arc(joint.x, joint.y, unit * 1.3, 0, 2 * Math.PI);
    context.fillStyle = COLOURS[sideOf(joint.name)];
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
