"""The JavaScript client in Node: images, streams that go on, and every failure as a sentence."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import shutil
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import FakeEstimator, marked_image
from tests.pictures import encoded
from tests.service.conftest import Service, serving
from tests.service.test_tls import Authority, encrypted

CLIENT = Path(__file__).parents[2] / "service" / "web" / "client"
NODE = shutil.which("node")
pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(NODE is None, reason="node is not installed"),
]
# Node 20 has its WebSocket behind this; later ones have it anyway.
FLAG = "--experimental-websocket"
HEAD = f"""
  import * as sdpose from {json.dumps(str(CLIENT / "index.js"))};
  import {{ createInterface }} from "node:readline";
  const {{ PoseClient, PoseError, draw }} = sdpose;
  const tell = (value) => console.log(JSON.stringify(value));
  const outcome = async (work) => {{
    try {{ return await work(); }}
    catch (error) {{ return [error.name, error.code ?? null, error.message]; }}
  }};
"""
STREAM = """
  const [url, apiKey, config] = JSON.parse(process.argv[1]);
  const stream = new PoseClient(url, { apiKey }).stream({
    config, reconnect: { firstMs: 10, longestMs: 50 },
    onState: ({ state, newIds }) => { if (newIds) tell("new ids"); else if (state === "waiting") tell(state); },
  });
  const source = createInterface({ input: process.stdin });
  source.on("line", (line) => stream.send({ image: Buffer.from(line, "base64"), line: line.length }));
  source.on("close", () => stream.end());
  for await (const answer of stream) {
    const { sequence, dropped, people, frame, error } = answer;
    tell([sequence, dropped, error?.code ?? people[0].keypoints[0].x, frame.line > 0]);
  }
  tell("end");
"""  # noqa: E501


def image(mark: int) -> bytes:
    return encoded(marked_image(mark), "PNG")


def line(data: bytes) -> bytes:
    return base64.b64encode(data) + b"\n"


@asynccontextmanager
async def node(script: str, *given: object, **environment: str) -> AsyncIterator[Process]:
    """A script that runs; `given` is its argument, as JSON."""
    assert NODE is not None
    process = await asyncio.create_subprocess_exec(
        NODE, FLAG, "--input-type=module", "--eval", HEAD + script, json.dumps(given),
        stdin=PIPE, stdout=PIPE, env=environment,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def told(process: Process) -> Any:
    assert process.stdout is not None
    text = await asyncio.wait_for(process.stdout.readline(), 100)
    assert text, "the script ended"
    return json.loads(text)


async def result(script: str, *given: object, **environment: str) -> Any:
    """What a script tells."""
    async with node(script, *given, **environment) as process:
        return await told(process)


@pytest.mark.parametrize(
    ("status", "body", "after", "expected"),
    [
        (
            413,
            '{"code": "payload_too_large", "detail": "40 MB"}',
            "",
            ["payload_too_large", "40 MB", None],
        ),
        (429, '{"code": "overloaded", "detail": "full"}', "3", ["overloaded", "full", 3]),
        (502, "<html>", "", ["unavailable", "An answer of status 502, perhaps of a proxy.", None]),
        (0, "", "", ["unreachable", "The service cannot be reached.", None]),
    ],
)
async def test_errors(status: int, body: str, after: str, expected: list[object]) -> None:
    headers = {"Retry-After": after} if after else {}
    answer = f"new Response({body!r}, {{status: {status}, headers: {json.dumps(headers)}}})"
    script = f"""
      const fetch = async () => {answer if status else "{ throw new TypeError('no') }"};
      try {{ await new PoseClient("http://a", {{ fetch }}).models(); }}
      catch (error) {{ tell([error.code, error.message, error.retryAfter]); }}
    """
    assert await result(script) == expected


async def test_images(fake: FakeEstimator) -> None:
    fake.people = 3
    script = """
      const [url, apiKey, first, second] = JSON.parse(process.argv[1]);
      const client = new PoseClient(url, { apiKey });
      const bytes = Buffer.from(first, "base64"), bad = new Uint8Array(9);
      const mark = (answer) => answer instanceof PoseError ? answer.code : [answer.people[0].keypoints[0].x, answer.people.length];
      const box = { x: 0, y: 0, width: 4, height: 4 };
      tell([
        mark(await client.estimate(bytes, { max_people: 2 })),
        mark(await client.estimate(new Blob([bytes]), { boxes: [box] })),
        mark(await client.estimate(Uint8Array.from(bytes).buffer)),
        (await client.estimate([bytes, bad, Buffer.from(second, "base64")], { boxes: [[box], null, null] })).map(mark),
        (await client.estimate([bad])).map(mark),
        (await client.estimate([bytes], { boxes: [[box]] })).map(mark),
        await client.estimate([]),
        (await client.models()).keypoints.length,
      ]);
    """  # noqa: E501
    async with serving(fake, api_keys="secret") as service:
        files = [base64.b64encode(image(mark)).decode() for mark in (5, 6)]
        assert await result(script, service.url, "secret", *files) == [
            [5, 2],
            [5, 1],
            [5, 3],
            [[5, 1], "unsupported_media_type", [6, 3]],
            ["unsupported_media_type"],
            [[5, 1]],
            [],
            17,
        ]


async def test_what_callers_do_wrong_is_a_sentence(service: Service) -> None:
    script = """
      const [url] = JSON.parse(process.argv[1]), client = new PoseClient(url);
      delete globalThis.WebSocket;
      tell([
        await outcome(() => new PoseClient("localhost:8000")),
        await outcome(() => client.estimate("bus.jpg")),
        await outcome(() => client.estimate(new Blob(["x"]), { cycles: 99 })),
        await outcome(() => new PoseClient(url, { apiKey: "\\u20ac" }).models()),
        await outcome(() => new PoseClient(url).stream()),
        await outcome(() => client.models({ signal: AbortSignal.abort() })),
        await outcome(() => sdpose.webcam()),
      ]);
    """
    wrong = [[one[1], one[2]] for one in await result(script, service.url)]
    assert [message for _, message in wrong] == [
        'baseUrl: expected an address such as "http://localhost:8000", not "localhost:8000"',
        "image: expected a Blob, File, ArrayBuffer, Uint8Array or Buffer, not [object String]",
        "cycles: must be 0 to 8",
        "apiKey: expected printable ASCII without spaces",
        "This runtime has no WebSocket, as Node before 22: pass one, "
        "new PoseClient(url, { WebSocket }).",
        "This operation was aborted",
        "Browsers give the camera to pages on https or localhost only.",
    ]
    assert [code for code, _ in wrong[:5]] == ["invalid_argument"] * 4 + ["unsupported"]


async def test_answers_that_do_not_come_or_break_off() -> None:
    async def cut(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{"models"')
        writer.close()

    script = """
      const [url] = JSON.parse(process.argv[1]);
      tell(await outcome(() => new PoseClient(url).models()));
    """
    async with await asyncio.start_server(cut, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        broken = ["PoseError", "unreachable", "The answer broke off before its end."]
        assert await result(script, url) == broken
    refused = ["PoseError", "unreachable", "The service cannot be reached (ECONNREFUSED)."]
    assert await result(script, url) == refused


async def test_certificates(tmp_path: Path) -> None:
    authority = Authority.made(tmp_path / "ca")
    script = """
      const [url, file] = JSON.parse(process.argv[1]), client = new PoseClient(url);
      const first = await outcome(async () => (await client.models()).keypoints.length);
      const stream = client.stream({ reconnect: { attempts: 1 } });
      stream.send(Buffer.from(file, "base64")).then(() => stream.end());
      const people = await outcome(async () => { for await (const answer of stream) return answer.people.length; });
      tell([first, people]);
    """  # noqa: E501
    file = base64.b64encode(image(1)).decode()
    async with encrypted(authority.sign("server")) as service:
        for refused in await result(script, service.url, file):
            assert refused[:2] == ["PoseError", "unreachable"]
            assert refused[2].startswith("The service's certificate is not accepted: ")
        trusting = {"NODE_EXTRA_CA_CERTS": str(authority.ca)}
        assert await result(script, service.url, file, **trusting) == [17, 1]


@pytest.mark.parametrize("restart", [False, True])
async def test_every_frame_is_answered_once_where_none_may_be_dropped(restart: bool) -> None:
    """The connection breaks, or the service is another one, while frames are unanswered."""
    fake, ports = FakeEstimator(), dict[str, int]()
    config = {"drop": "none", "smoothing": False, "options": {"max_people": 1}}
    async with serving(fake, api_keys="secret") as service:
        ports["http_port"] = int(service.url.rsplit(":", 1)[1])
        async with node(STREAM, service.url, "secret", config) as process:
            assert process.stdin is not None
            process.stdin.write(line(image(1)))
            assert await told(process) == [1, 0, 1, True]
            fake.gate.clear()
            fake.entered.clear()
            for mark in (2, 3, 4):
                process.stdin.write(line(image(mark)))
            assert await asyncio.to_thread(fake.entered.wait, 100)
            service.runtime.streams.close("a break for the test")  # after the frame in the model
            fake.gate.set()
            before = [await told(process), await told(process)]
            assert before == [[2, 0, 2, True], "waiting"]
            if restart:
                service.stop.set()
                await asyncio.wait({service.running})
                async with serving(FakeEstimator(), api_keys="secret", **ports):
                    await finish(process, before, new_ids=True)
            else:
                await finish(process, before, new_ids=False)


async def finish(process: Process, before: list[Any], *, new_ids: bool) -> None:
    """What comes after the break: frames without an answer, one that cannot be read, the end."""
    assert process.stdin is not None
    process.stdin.write(line(b"no image"))
    process.stdin.write_eof()
    rest = [*before]
    while not rest or rest[-1] != "end":
        rest.append(await told(process))
    assert ("new ids" in rest) is new_ids
    answers = [one for one in rest if isinstance(one, list)]
    assert answers == [
        [2, 0, 2, True], [3, 0, 3, True], [4, 0, 4, True], [5, 0, "unsupported_media_type", True],
    ]  # fmt: skip


async def test_the_latest_frame_wins_and_the_others_count(fake: FakeEstimator) -> None:
    async with (
        serving(fake) as service,
        node(STREAM, service.url, None, {"smoothing": False}) as process,
    ):
        assert process.stdin is not None
        process.stdin.write(line(image(1)))
        assert await told(process) == [1, 0, 1, True]
        fake.gate.clear()
        for mark in range(2, 41):
            process.stdin.write(line(image(mark)))
        process.stdin.write_eof()
        fake.gate.set()
        answers = []
        while isinstance(answer := await told(process), list):
            answers.append(answer)
        assert answer == "end"
        assert answers[-1][0] == 40
        assert sum(1 + dropped for _, dropped, *_ in answers) == 39
        assert [number for number, *_ in answers] == [mark for _, _, mark, _ in answers]


SCRIPTED = """
  // A WebSocket that reads and answers as told, then closes: [answers, close code, reason].
  const breaks = JSON.parse(process.argv[1]), opened = [];
  class Scripted {
    constructor() {
      [this.left, this.code, this.reason] = breaks.shift() ?? [Infinity, 1000, ""];
      this.readyState = 0;
      this.seen = { frames: [] };
      opened.push(this.seen);
      setTimeout(() => this.left < 0 ? this.end() : (this.readyState = 1, this.onopen()));
    }
    end() { if (this.readyState < 3) { this.readyState = 3; this.onclose(this); } }
    send(message) {
      if (typeof message !== "string") return;
      const { config, frame } = JSON.parse(message);
      if (config) { this.seen.token = config.resume_token ?? null; return; }
      this.seen.frames.push(frame.sequence);
      setTimeout(() => {
        if (this.left === 0) return this.end();
        this.left -= 1;
        if (this.readyState === 1) this.onmessage({ data: JSON.stringify({ sequence: frame.sequence, people: [], resume_token: "token" }) });
      });
    }
    close() { this.readyState = 3; }
  }
  const fetch = async () => Response.json({ code: "overloaded", detail: "full" }, { status: 429, headers: { "Retry-After": "0.02" } });
  const client = new PoseClient("http://a", { WebSocket: Scripted, fetch }), pauses = [];
  const frames = Array.from({ length: 5 }, () => new Uint8Array(1));
  const numbers = [];
  const end = await outcome(async () => {
    for await (const answer of client.stream({
      config: { drop: "none" }, frames, reconnect: { firstMs: 4, longestMs: 8, attempts: 4, buffer: 3 },
      onState: ({ retryInMs }) => retryInMs && pauses.push(retryInMs),
    })) numbers.push([answer.sequence, answer.dropped]);
  });
  tell({ numbers, opened, pauses, end: end ?? null });
"""  # noqa: E501


async def test_what_is_sent_again_and_when() -> None:
    told = await result(SCRIPTED, [1, 1012, ""], [-1, 1006, ""], [0, 1006, ""], [1, 1013, ""])
    assert told["numbers"] == [[number, 0] for number in range(1, 6)]
    assert told["end"] is None
    assert [one.get("token") for one in told["opened"]] == [None, None, "token", "token", "token"]
    first, refused, silent, once, last = (one["frames"] for one in told["opened"])
    assert first[0] == 1
    assert refused == []
    assert silent[0] == once[0] == 2, "again what had no answer"
    assert last[0] == 3
    # Doubled at each failure in a row, and as long as the service wants, both to a bound.
    assert told["pauses"] == [4, 8, 8, 4]


@pytest.mark.parametrize(
    ("breaks", "code", "message"),
    [
        ([[1, 1008, "invalid_argument: cycles: no"]], "invalid_argument", "cycles: no"),
        ([[0, 1009, ""]], "payload_too_large", "The connection broke off."),
        ([[-1, 1006, ""]] * 4, "overloaded", "full"),
        ([[0, 1012, "unavailable: the service stops"]] * 4, "unavailable", "the service stops"),
    ],
)
async def test_a_stream_that_is_given_up(breaks: list[object], code: str, message: str) -> None:
    told = await result(SCRIPTED, *breaks)
    assert told["end"] == ["PoseError", code, message]
    assert len(told["opened"]) == len(breaks)


async def test_a_wrong_key_ends_a_stream(fake: FakeEstimator) -> None:
    """A refused WebSocket says nothing; the client asks why, and does not try on and on."""
    script = """
      const [url, apiKey] = JSON.parse(process.argv[1]);
      const stream = new PoseClient(url, { apiKey }).stream();
      tell(await outcome(async () => { for await (const answer of stream) tell(answer); }));
    """
    async with serving(fake, api_keys="secret") as service:
        refused = await result(script, service.url, "wrong")
        assert refused[:2] == ["PoseError", "unauthenticated"]


async def test_frames_whose_source_fails(service: Service) -> None:
    script = """
      const [url, file] = JSON.parse(process.argv[1]), seen = [];
      async function* frames() { yield Buffer.from(file, "base64"); throw new Error("no more film"); }
      const error = await outcome(async () => {
        for await (const { sequence } of new PoseClient(url).stream({ frames: frames() })) seen.push(sequence);
      });
      tell([seen, error[2]]);
    """  # noqa: E501
    file = base64.b64encode(image(1)).decode()
    assert await result(script, service.url, file) == [[1], "no more film"]


async def test_the_drawing_takes_names_and_edges_as_given() -> None:
    """Three joints of no dataset: sides by the words in their names."""
    script = """
      const strokes = [], fills = [];
      const context = {
        canvas: { width: 100, height: 100 },
        beginPath() {}, lineTo() {}, fillRect() {}, fillText() {}, strokeRect() { fills.push("box"); },
        moveTo() { strokes.push(this.strokeStyle); }, arc() {}, stroke() {},
        fill() { fills.push(this.fillStyle); }, measureText: () => ({ width: 1 }),
      };
      const keypoints = [["tail", 0.9], ["left_ear", 0.9], ["ear_right", 0.9], ["left_paw", 0.1]]
        .map(([name, score]) => ({ name, score, x: 1, y: 1 }));
      const people = [{ keypoints, box: { x: 0, y: 0, width: 9, height: 9 }, score: 1 }];
      const models = { keypoints: keypoints.map(({ name }) => name), skeleton: [[0, 1], [0, 2], [1, 2], [1, 3], [0, 9]] };
      draw(context, { people }, models, { threshold: 0.5, boxes: true, colours: { middle: "grey" } });
      draw(context, { error: "none" }, models);
      tell([strokes, fills]);
    """  # noqa: E501
    left, right = "#ff8a24", "#2896ff"
    strokes, fills = [left, right, "grey"], ["box", "grey", left, right]
    assert await result(script) == [strokes, fills]


async def test_the_types_name_what_is_there() -> None:
    types = (CLIENT / "index.d.ts").read_text()
    script = """
      const own = (one) => Object.getOwnPropertyNames(one.prototype).filter((name) => name !== "constructor");
      tell([Object.keys(sdpose), [...own(PoseClient), ...own(sdpose.PoseStream), ...own(sdpose.VideoFrames)]]);
    """  # noqa: E501
    names, methods = await result(script)
    assert sorted(re.findall(r"^export (?:class|function) (\w+)", types, re.M)) == sorted(names)
    internal = {"key", "playing"}
    for name in set(methods) - internal:
        assert re.search(rf"^  (get |readonly )?{name}[(<:]", types, re.M), name
