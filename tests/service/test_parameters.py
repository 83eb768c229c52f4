"""Parameters and boxes as callers write them."""

from __future__ import annotations

import pytest

from sdpose_client.grpc_messages import options_from
from sdpose_client.requests import Ask
from sdpose_client.rest_messages import fields_of
from service.errors import ErrorCode, ServiceError
from service.parameters import (
    Priority,
    check_caller_boxes,
    parse_boxes,
    parse_parameters,
)
from service.rpc.convert import parameters_of
from tests.service.conftest import rejected


def test_strings_and_values_are_read() -> None:
    parsed = parse_parameters(
        {"max_people": "3", "min_score": "0.5", "flip_test": "true", "cycles": "0"}
    )
    assert (parsed.max_people, parsed.min_score, parsed.flip_test) == (3, 0.5, True)
    assert parsed.cycles == 0
    assert parse_parameters({"cycles": "2", "priority": "high"}).priority is Priority.HIGH
    assert parse_parameters({"cycles": "2"}).cycles == 2
    assert parse_parameters({}).suppress is None
    assert parse_parameters({"suppress": "false"}).suppress is False


@pytest.mark.parametrize(("suppress", "cycles"), [(None, None), (True, 0), (False, 2)])
def test_options_are_asked_for_alike_over_both_protocols(
    suppress: bool | None, cycles: int | None
) -> None:
    ask = Ask(suppress=suppress, cycles=cycles)
    for parsed in (parse_parameters(fields_of(ask, None)), parameters_of(options_from(ask))):
        assert (parsed.suppress, parsed.cycles) == (suppress, cycles)


@pytest.mark.parametrize("cycles", ["auto", "1.5", 9, -1])
def test_cycles_are_refused_with_their_range(cycles: object) -> None:
    with pytest.raises(ServiceError, match=r"^cycles: must be 0 to 8$"):
        parse_parameters({"cycles": cycles})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_people", "0"),
        ("max_people", "many"),
        ("min_score", "1.5"),
        ("min_score", "nan"),
        ("min_keypoint_score", "-0.1"),
        ("cycles", "-1"),
        ("cycles", "9"),
        ("cycles", "fast"),
        ("flip_test", "perhaps"),
        ("deadline_ms", "0"),
        ("deadline_ms", "inf"),
        ("deadline_ms", "1_0"),
        ("cycles", "0_1"),
        ("max_people", "1_000"),
        ("priority", "urgent"),
        ("colour", "red"),
    ],
)
def test_bad_values_name_their_field(name: str, value: str) -> None:
    with rejected(ErrorCode.INVALID_ARGUMENT) as refused:
        parse_parameters({name: value})
    assert refused.value.field == name


def test_boxes_of_one_image_in_both_writings() -> None:
    text = '[[1, 2, 4, 8], {"x": 1, "y": 2, "width": 3, "height": 6}]'
    (boxes,) = parse_boxes(text, 1, 10)
    assert boxes is not None
    assert boxes.tolist() == [[1, 2, 4, 8], [1, 2, 4, 8]]


def test_boxes_of_several_images() -> None:
    found = [*parse_boxes("[[[1, 2, 4, 8]], null, []]", 3, 10), *parse_boxes("[]", 1, 10)]
    shapes = [None if boxes is None else boxes.shape for boxes in found]
    assert shapes == [(1, 4), None, (0, 4), (0, 4)]


@pytest.mark.parametrize(
    ("text", "images"),
    [
        ("not json", 1),
        ("[" * 150, 1),
        ("{}", 1),
        ("[1, 2, 3, 4]", 1),
        ("[[1, 2, 3]]", 1),
        ('[["1", 2, 3, 4]]', 1),
        ("[[true, 2, 3, 4]]", 1),
        ("[[NaN, 2, 3, 4]]", 1),
        ("[[1, 2, Infinity, 4]]", 1),
        ("[[1e300, 2, 1e301, 4]]", 1),
        ("[[4, 2, 1, 8]]", 1),
        ("[[1, 2, 1, 8]]", 1),
        ('[{"x": 1, "y": 2}]', 1),
        ("[[1, 2, 4, 8]]", 2),
        ("[[[1, 2, 4, 8]]]", 2),
    ],
)
def test_bad_boxes(text: str, images: int) -> None:
    with rejected(ErrorCode.INVALID_ARGUMENT) as refused:
        parse_boxes(text, images, 10)
    assert refused.value.field == "boxes"


@pytest.mark.parametrize("text", ["[" * 100_000, "[[1, 2, 4, 8]," * 1000, "[" + "0," * 1000 + "0]"])
def test_boxes_are_counted_before_they_are_built(text: str) -> None:
    with rejected(ErrorCode.PAYLOAD_TOO_LARGE, field="boxes"):
        parse_boxes(text, 1, 10)


def test_too_many_boxes() -> None:
    with rejected(ErrorCode.PAYLOAD_TOO_LARGE):
        check_caller_boxes([[0, 0, 1, 1]] * 11, 10)
