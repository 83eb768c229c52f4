// The request of the page as text to paste.

const shell = (text) => `'${text.replaceAll("'", "'\\''")}'`;

/** `request`: {kind, name, options, origin, key}. The key itself is never part of the text. */
export function asCurl({ kind, name, options, origin, key }) {
  if (kind !== "image") {
    const { hostname } = new URL(origin);
    return `sdpose stream ${kind === "webcam" ? "0" : shell(name)} --server ${hostname}:8001`;
  }
  const query = new URLSearchParams(options).toString();
  const header = key ? ' --header "X-API-Key: $SDPOSE_API_KEY"' : "";
  return `curl --fail${header} --form ${shell(`image=@${name}`)} ${shell(`${origin}/pose${query && `?${query}`}`)}`;
}

export function asPython({ kind, name, options, origin, key }) {
  const text = JSON.stringify;
  if (kind !== "image") return streamed(kind, name, origin, key);
  const lines = [
    ...(key ? ["import os", ""] : []),
    "import httpx",
    "",
    `with open(${text(name)}, "rb") as image:`,
    "    response = httpx.post(",
    `        ${text(`${origin}/pose`)},`,
    ...(Object.keys(options).length ? [`        params=${text(options)},`] : []),
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

function streamed(kind, name, origin, key) {
  const source = kind === "webcam" ? "0" : JSON.stringify(name);
  return [
    ...(key ? ["import os", ""] : []),
    "import cv2",
    "from service.client import WebSocketPoseClient",
    "",
    "",
    "def frames():",
    `    video = cv2.VideoCapture(${source})`,
    "    while (read := video.read())[0]:",
    '        yield cv2.imencode(".jpg", read[1])[1].tobytes()',
    "",
    "",
    `client = WebSocketPoseClient(${JSON.stringify(origin)}${key ? ', api_key=os.environ["SDPOSE_API_KEY"]' : ""})`,
    "for answer in client.follow(frames()):",
    "    print(answer.sequence, answer.outcome)",
  ].join("\n");
}
