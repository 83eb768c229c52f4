"""Archives in a store and on the web: a local S3 server, a local web server."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("moto", reason="comes with `make test-all`")

import boto3
import pyarrow.fs
import pyarrow.parquet as pq
from moto.server import ThreadedMotoServer

from sdpose_core.commands.archive.output import ArchiveOutput
from sdpose_core.files.outputs import OutputError
from sdpose_core.io import remote
from sdpose_core.io.results.parquet import results_schema
from sdpose_core.io.sources import find_sources, read_list
from tests.archive.makers import SETTINGS, Marks, picture_files, rows_of
from tests.archive.test_archive import run
from tests.sites import served_folder
from tests.videos import flat_video

pytestmark = pytest.mark.slow("a local S3, 1 min")
BUCKET = "pictures"


@pytest.fixture(scope="module")
def s3_address() -> Iterator[str]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def store(s3_address: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[boto3.client]:
    """An empty bucket; the environment leads s3fs to it, as it does for users."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL_S3": s3_address,
    }.items():
        monkeypatch.setenv(name, value)
    remote._file_system.cache_clear()
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    client = boto3.client("s3", endpoint_url=s3_address)
    client.create_bucket(Bucket=BUCKET)
    yield client
    listed = client.list_objects_v2(Bucket=BUCKET).get("Contents", [])
    for each in listed:
        client.delete_object(Bucket=BUCKET, Key=each["Key"])
    client.delete_bucket(Bucket=BUCKET)
    remote._file_system.cache_clear()


def keys(store: boto3.client) -> list[str]:
    listed = store.list_objects_v2(Bucket=BUCKET).get("Contents", [])
    return sorted(each["Key"] for each in listed)


def filled(store: boto3.client, folder: Path, count: int) -> None:
    for path in picture_files(folder, count):
        store.upload_file(str(path), BUCKET, f"in/{path.name}")


def in_store(name: str) -> ArchiveOutput:
    return ArchiveOutput(f"s3://{BUCKET}/{name}", results_schema(SETTINGS))


def s3_rows(address: str, key: str) -> list[dict[str, object]]:
    """Read by another library than the one that wrote."""
    files = pyarrow.fs.S3FileSystem(endpoint_override=address, scheme="http", region="us-east-1")
    rows: list[dict[str, object]] = pq.read_table(f"{BUCKET}/{key}", filesystem=files).to_pylist()
    return rows


def test_a_prefix_of_a_store_to_a_file_on_disk(store: boto3.client, tmp_path: Path) -> None:
    filled(store, tmp_path / "in", 9)
    store.upload_file(str(flat_video(tmp_path / "clip.mp4", 5)), BUCKET, "in/below/clip.mp4")
    store.put_object(Bucket=BUCKET, Key="in/notes.txt", Body=b"no picture")
    sources, problems = find_sources([f"s3://{BUCKET}/in"])
    assert (len(sources), problems) == (10, [])
    output = ArchiveOutput(str(tmp_path / "out.parquet"), results_schema(SETTINGS))
    run(output, sources)
    rows = rows_of(tmp_path / "out.parquet")
    assert sum(row["frame"] is None for row in rows) == 9
    assert [row["frame"] for row in rows if row["input"].endswith("clip.mp4")] == [0, 1, 2, 3, 4]
    assert all(row["error"] is None for row in rows)


def test_a_glob_and_a_single_object(store: boto3.client, tmp_path: Path) -> None:
    filled(store, tmp_path / "in", 12)
    sources, _ = find_sources([f"s3://{BUCKET}/in/0001*.png", f"s3://{BUCKET}/in/00003.png"])
    assert [source.place.name for source in sources] == ["00010.png", "00011.png", "00003.png"]


@pytest.mark.parametrize("name", ["out.parquet", "out/"])
def test_into_the_store_and_on(
    store: boto3.client, s3_address: str, tmp_path: Path, name: str
) -> None:
    filled(store, tmp_path / "in", 6)
    sources, _ = find_sources([f"s3://{BUCKET}/in"])
    run(in_store(name), sources[:3], size=2)
    with pytest.raises(OutputError, match="add --resume"):
        run(in_store(name), sources)
    marks = Marks()
    run(in_store(name), sources, resume=True, estimate=marks)
    assert marks.seen == 3
    rows = s3_rows(s3_address, name.rstrip("/"))
    assert [row["input"] for row in rows] == [source.name for source in sources]
    made = [key for key in keys(store) if not key.startswith("in/")]
    assert made == ["out.parquet"] if name == "out.parquet" else len(made) == 3


def test_a_failure_leaves_no_half_object(store: boto3.client, tmp_path: Path) -> None:
    filled(store, tmp_path / "in", 3)
    sources, _ = find_sources([f"s3://{BUCKET}/in"])

    class Broken(Marks):
        def __call__(self, images: object) -> list[object]:  # type: ignore[override]
            raise RuntimeError("no memory")

    with pytest.raises(RuntimeError, match="no memory"):
        run(in_store("out/"), sources, estimate=Broken())
    assert [key for key in keys(store) if not key.startswith("in/")] == []


def test_objects_that_go_while_the_run_goes(store: boto3.client, tmp_path: Path) -> None:
    filled(store, tmp_path / "in", 4)
    sources, _ = find_sources([f"s3://{BUCKET}/in"])
    store.delete_object(Bucket=BUCKET, Key="in/00002.png")
    result = run(in_store("out.parquet"), sources)
    assert result.failures == [f"s3://{BUCKET}/in/00002.png: there is no such file"]


def test_what_a_store_refuses_is_a_sentence(
    store: boto3.client, s3_address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, problems = find_sources(["s3://no-such-bucket/in", f"s3://{BUCKET}/empty"])
    assert problems[0].startswith("s3://no-such-bucket/in: ")
    assert problems[1].startswith(f"s3://{BUCKET}/empty: ")
    assert len(problems) == 2
    with pytest.raises(OutputError, match="s3://no-such-bucket/out"):
        ArchiveOutput("s3://no-such-bucket/out/", results_schema(SETTINGS)).begin(resume=False)

    def denied(*_: object, **__: object) -> None:
        raise PermissionError("Access Denied")

    monkeypatch.setattr(remote.split(f"s3://{BUCKET}")[0], "pipe_file", denied)
    with pytest.raises(OutputError, match=r"access denied \(Access Denied\)"):
        in_store("out/").begin(resume=False)
    assert keys(store) == []


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    folder = tmp_path / "site"
    folder.mkdir()
    with served_folder(folder) as address:
        yield address, folder


def test_a_list_of_addresses_with_dead_links(site: tuple[str, Path], tmp_path: Path) -> None:
    address, folder = site
    picture_files(folder, 5)
    flat_video(folder / "clip.mp4", 4)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nobody = closed.getsockname()[1]
    lines = [
        "# pictures",
        *(f"{address}/{number:05d}.png?size=large" for number in range(5)),
        "",
        f"{address}/clip.mp4",
        f"{address}/gone.jpg",
        f"http://127.0.0.1:{nobody}/a.jpg",
        f"{address}/00001.png?size=large",
    ]
    (folder / "list.txt").write_text("\n".join(lines))
    given = read_list(f"{address}/list.txt")
    assert given == read_list(str(folder / "list.txt"))
    sources, problems = find_sources(given)
    assert problems == []
    assert len(sources) == 8, "one of them stood there twice"
    output = ArchiveOutput(str(tmp_path / "out.parquet"), results_schema(SETTINGS))
    result = run(output, sources)
    rows = rows_of(tmp_path / "out.parquet")
    assert sum(row["error"] is None for row in rows) == 5 + 4
    errors = {row["input"].rsplit("/", 1)[-1]: row["error"] for row in rows if row["error"]}
    assert errors["gone.jpg"] == "there is no such file"
    assert "cannot connect" in errors["a.jpg"]
    assert len(result.failures) == 2


def test_what_is_secret_in_an_address_is_in_no_result(
    site: tuple[str, Path], tmp_path: Path
) -> None:
    address, folder = site
    picture_files(folder, 1)
    host = address.removeprefix("http://")
    given = [
        f"http://me:s3cret@{host}/00000.png?pwd=s3cret",
        f"http://me:s3cret@{host}/gone.png?token=s3cret#s3cret",
        f"http://me:s3/cret@{host}/00000.png",
        f"http://me:s3cret x@{host}:99999/00000.png",
        "http://me:s3cret@127.0.0.1:1/a.png",
    ]
    wrong = ["http://me:s3cret@[::1/a.png", f"ftp://me:s3cret@{host}/a.png"]
    sources, problems = find_sources([*given, *wrong])
    assert len(sources) == 5
    result = run(ArchiveOutput(str(tmp_path / "out.parquet"), results_schema(SETTINGS)), sources)
    rows = rows_of(tmp_path / "out.parquet")
    shown = [str(rows), *problems, *result.failures, *map(str, sources)]
    assert len(result.failures) == 4
    assert len(problems) == 2
    assert not [text for text in shown if "s3cret" in text or "s3/cret" in text or "cret@" in text]
    assert f"{address}/00000.png?pwd=***" in [row["input"] for row in rows]
    assert [str(source.place) for source in sources] == [
        "00000.png",
        "gone.png",
        *["00000.png"] * 2,
        "a.png",
    ]


def test_a_list_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.txt: No such file"):
        read_list(str(tmp_path / "none.txt"))
    (tmp_path / "list.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="not a list in UTF-8"):
        read_list(str(tmp_path / "list.txt"))
