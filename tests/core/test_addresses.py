"""What is shown of an address: all that names it, and none of its secrets."""

from __future__ import annotations

import pytest

from sdpose_core.io.addresses import shown, without_secrets
from sdpose_core.io.sources import find_sources


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("rtsp://me:word@host/live", "rtsp://host/live"),
        ("rtsp://me@10.0.0.5/s", "rtsp://10.0.0.5/s"),
        ("rtsp://me:w@rd@10.0.0.5:554/s", "rtsp://10.0.0.5:554/s"),
        ("rtsp://me:w%40r/d@10.0.0.5/s", "rtsp://10.0.0.5/s"),
        ("rtsp://me:w?rd@10.0.0.5/s", "rtsp://10.0.0.5/s"),
        ("rtsp://me:w#rd@10.0.0.5", "rtsp://10.0.0.5"),
        ("rtsp://me:12/34@10.0.0.5/s", "rtsp://10.0.0.5/s"),
        ("rtsp://me:w@r.d/word@10.0.0.5/s", "rtsp://10.0.0.5/s"),
        ("rtsp://me:w@[fd00::5]:554/s", "rtsp://[fd00::5]:554/s"),
        ("http://host/video.cgi?user=me&pwd=w/o?r;d&rate=5", "http://host/video.cgi?user=***&pwd=***&rate=5"),
        ("http://host/a?rate=5&PassWord=a&b", "http://host/a?rate=5&PassWord=***"),
        ("http://host/cgi?loginuse=me&loginpas=word", "http://host/cgi?loginuse=***&loginpas=***"),
        ("http://host/a?%70wd=x&api%5Fkey=y&X-Amz-Signature=z", "http://host/a?%70wd=***&api%5Fkey=***&X-Amz-Signature=***"),
        ("http://host/a.jpg#access_token=word", "http://host/a.jpg"),
        ("rtsp://host/user=me_password=word_channel=1.sdp?real", "rtsp://host/***?real"),
        ("srt://host:9000?passphrase=word", "srt://host:9000?passphrase=***"),
        ("s3://key:word@bucket/a", "s3://bucket/a"),
    ],
)  # fmt: skip
def test_secrets_go(address: str, expected: str) -> None:
    assert shown(address) == expected
    told = without_secrets(f"{address!r} is wrong, says 'GET {address}'", address)
    assert told == f"{expected!r} is wrong, says 'GET {expected}'"
    assert shown(expected) == expected


@pytest.mark.parametrize(
    "address",
    [
        "http://cdn.example.com:8080/npm/pkg@1.2.3/img@2x.jpg",
        "http://media:8080/img@2x.jpg?page=2&keyframe=7&monkey=1&author=me",
        "abfs://container@account.dfs.core.windows.net/password=1/a.jpg",
        "s3://bucket/user=5/a@b:c#1.jpg",
        "photos/a:b@c.jpg?pwd=1",
        "/dev/video0",
        "0",
    ],
)
def test_what_is_no_secret_stays(address: str) -> None:
    assert shown(address) == address


def test_messages_of_libraries_that_write_an_address_their_own_way() -> None:
    address = "http://me:w@r d@host/a?pwd=x%2Fy"
    told = without_secrets(
        "no URL: 'me:w%40r%20d', w@r d and x/y; http://u:v@other/ fails", address
    )
    assert told == "no URL: '***', *** and ***; http://other/ fails"


def test_inputs_that_differ_only_in_a_secret_are_not_mixed() -> None:
    sources, problems = find_sources(["http://u:p@HOST.example/a.jpg", "http://host.example/a.jpg"])
    assert (len(sources), problems) == (1, [])
    sources, [problem] = find_sources([f"http://host.example/a.jpg?key={one}" for one in "xy"])
    assert sources[0].address == "http://host.example/a.jpg?key=x"
    assert problem.startswith("http://host.example/a.jpg?key=***: differs from another input only")
