// The request of the page as code to paste.

const shell = (text) => `'${text.replaceAll("'", "'\\''")}'`;
const text = JSON.stringify; // of strings: the same in Python and JavaScript

/** `request`: {kind, name, options, origin, key}. The key itself is never part of the text. */
export function asCurl({ name, options, origin, key }) {
  const query = new URLSearchParams(options).toString();
  const header = key ? ' --header "X-API-Key: $SDPOSE_API_KEY"' : "";
  return `curl --fail${header} --form ${shell(`image=@${name}`)} ${shell(`${origin}/pose${query && `?${query}`}`)}`;
}

export function asPython({ kind, name, options, origin, key }) {
  if (kind !== "image") return streamInPython(kind, name, options, origin, key);
  const lines = [
    ...(key ? ["import os", ""] : []),
    "import httpx",
    "",
    `with open(${text(name)}, "rb") as image:`,
    "    response = httpx.post(",
    `        ${text(`${origin}/pose`)},`,
    ...(Object.keys(options).length ? [`        params={${python(options, (option) => `${text(option)}: `)}},`] : []),
    ...(key ? ['        headers={"X-API-Key": os.environ["SDPOSE_API_KEY"]},'] : []),
    '        files={"image": image},',
    "        timeout=60,",
    "    )",
    "response.raise_for_status()",
    'for person in response.json()["people"]:',
    '    print(person["score"], person["keypoints"][0])',
  ];
  return lines.join("\n");
}

const python = (options, name) => Object.entries(options)
  .map(([option, value]) => `${name(option)}${value === true ? "True" : value}`).join(", ");

function streamInPython(kind, name, options, origin, key) {
  return [
    ...(key ? ["import os", ""] : []),
    "import cv2  # opencv-python-headless",
    "from sdpose_client import Ask, StreamAsk, WebSocketPoseClient",
    "",
    "",
    "def frames():",
    `    video = cv2.VideoCapture(${kind === "webcam" ? 0 : text(name)})`,
    "    while (read := video.read())[0]:",
    '        yield cv2.imencode(".jpg", read[1])[1].tobytes()',
    "",
    "",
    `client = WebSocketPoseClient(${text(origin)}${key ? ', api_key=os.environ["SDPOSE_API_KEY"]' : ""})`,
    `ask = Ask(${python(options, (option) => `${option}=`)})`,
    `stream = StreamAsk(drop="${kind === "webcam" ? "latest" : "none"}")`,
    "for answer in client.follow(frames(), ask, stream):",
    "    print(answer.sequence, answer.outcome)",
  ].join("\n");
}

export function asJavaScript({ kind, name, options, origin, key }) {
  if (kind !== "image") return streamInJavaScript(kind, options, origin, key);
  return [
    `// With Node, after: npm install ${origin}/sdpose-client.tgz`,
    'import { readFile } from "node:fs/promises";',
    'import { PoseClient } from "sdpose-client";',
    "",
    `const client = new PoseClient(${text(origin)}${key ? ", { apiKey: process.env.SDPOSE_API_KEY }" : ""});`,
    `const answer = await client.estimate(await readFile(${text(name)}), ${text(options)});`,
    "for (const person of answer.people) console.log(person.score, person.keypoints[0]);",
  ].join("\n");
}

function streamInJavaScript(kind, options, origin, key) {
  return [
    "// In a page of this service or of its SDPOSE_CORS_ORIGINS: a module script, or the browser's console.",
    `const { PoseClient, draw, ${kind === "webcam" ? "webcam" : "videoFrames"} } = await import(${text(`${origin}/web/client/index.js`)});`,
    "",
    `const client = new PoseClient(${text(origin)}${key ? ', { apiKey: prompt("API key") }' : ""});`,
    "const models = await client.models();",
    ...(kind === "webcam" ? ["const frames = await webcam();"] : [
      'const input = Object.assign(document.createElement("input"), { type: "file", accept: "video/*" });',
      "document.body.prepend(input);",
      "await new Promise((chosen) => (input.onchange = chosen));",
      "const frames = await videoFrames(input.files[0]);",
    ]),
    'const canvas = document.createElement("canvas");',
    "document.body.prepend(canvas);",
    `for await (const { frame, ...answer } of client.stream({ config: { options: ${text(options)} }, frames })) {`,
    "  draw(canvas, answer, models, { image: frame.canvas });",
    "}",
  ].join("\n");
}
