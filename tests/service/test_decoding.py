"""Large JPEG files are decoded smaller where nobody loses by it."""

from __future__ import annotations

import gc
import io

import cv2
import numpy as np
import pytest
from PIL import Image as PillowImage

from sdpose_core import PoseEstimator
from sdpose_core.types import Detections, Image, Poses
from sdpose_core.vision.image_files import ImageLimits, decode_image, read_header
from service.errors import ServiceError
from service.parameters import PoseParameters
from service.pipeline.decoding import Decoded, ImageDecoder
from service.pipeline.limits import PipelineLimits
from service.runtime.models import pipeline_limits
from service.scheduling.budget import ByteBudget
from tests.fakes import FakeEstimator, marked_image
from tests.pictures import encoded
from tests.service.conftest import quiet_settings
from tests.service.test_pipeline import stand

ALL = np.array([[0, 0, 6000, 6000]], np.float32)
PERSON = [48.0, 399.0, 246.0, 902.0]  # of bus.jpg


def decoder(bound: int = 2**30, least_side: int = 100) -> ImageDecoder:
    budget = ByteBudget(bound, "decoded images", lambda: None)
    made = ImageDecoder(ImageLimits(), budget, least_side=least_side, crop_size=(48, 64))
    made.budget = budget  # type: ignore[attr-defined]
    return made


def squares(width: int, height: int, orientation: int = 1, mode: str = "RGB") -> bytes:
    """A JPEG, dark but for a light square of 80 pixels with its middle at (160, 120)."""
    pixels = np.full((height, width, 3), 40, np.uint8)
    pixels[80:160, 120:200] = 220
    exif = PillowImage.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    PillowImage.fromarray(pixels).convert(mode).save(file, "JPEG", quality=95, exif=exif)
    return file.getvalue()


def middle(image: Image) -> tuple[float, float]:
    """Where the light square is."""
    rows, columns = np.nonzero(image[..., 1] > 130)
    return float(columns.mean()), float(rows.mean())


@pytest.mark.parametrize(
    ("width", "height", "reduction"),
    [(199, 100, 1), (200, 100, 2), (100, 399, 2), (400, 300, 4), (801, 400, 8), (6000, 400, 8)],
)
def test_the_reduction_leaves_what_the_detector_needs(
    width: int, height: int, reduction: int
) -> None:
    decoded = decoder().decode(encoded(marked_image(0x406080, width, height), "JPEG"))
    assert decoded.reduction == reduction
    assert (decoded.width, decoded.height) == (width, height)
    assert decoded.pixels.shape == (-(-height // reduction), -(-width // reduction), 3)


def test_boxes_that_are_given_limit_it() -> None:
    photograph = encoded(marked_image(0x406080, 800, 800), "JPEG")
    for height, reduction in [(63, 1), (127, 1), (128, 2), (256, 4), (512, 8), (700, 8)]:
        boxes = np.array([[0, 0, 700, 700], [10, 10, 20, 10 + height]], np.float32)
        assert decoder().decode(photograph, boxes=boxes).reduction == reduction


def test_a_lying_person_is_as_large_as_the_crop_is_wide() -> None:
    boxes = np.array([[0, 0, 96, 10]], np.float32)  # its crop is 96 x 128
    assert decoder().large_enough(boxes)
    assert not decoder().large_enough(boxes / 2.1)
    assert decoder().large_enough(np.zeros((0, 4), np.float32))


def test_other_kinds_frames_and_wanted_wholes_are_not_reduced() -> None:
    image = marked_image(0x406080, 800, 400)
    assert decoder().decode(encoded(image, "PNG")).reduction == 1
    assert decoder().decode(encoded(image, "WEBP")).reduction == 1
    assert decoder().decode(image).pixels is image
    assert decoder().decode(encoded(image, "JPEG"), whole=True).reduction == 1


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_one_shows_the_same(orientation: int, mode: str) -> None:
    """And maps back to the pixels of the whole one, also where a block is cut off."""
    nobody = np.zeros((1, 4), np.float32), np.ones(1, np.float32)
    for width, height in [(480, 400), (483, 401)]:
        data = squares(width, height, orientation, mode)
        whole = decoder().decode(data, whole=True)
        small = decoder().decode(data)
        assert small.reduction == (4 if orientation == 1 or width == 480 else 1)
        assert (small.width, small.height) == (whole.pixels.shape[1], whole.pixels.shape[0])
        points = np.tile(np.array(middle(small.pixels), np.float32), (1, 17, 1))
        poses = Poses(points, np.ones((1, 17), np.float32), *nobody)
        found = small.grown_poses(poses).keypoints[0, 0]
        np.testing.assert_allclose(found, middle(whole.pixels), atol=0.6)


def test_boxes_go_there_and_back() -> None:
    image = Decoded(np.zeros((51, 101, 3), np.uint8), 4, 403, 201)
    boxes = np.array([[8, 16, 403, 201]], np.float32)
    people = Detections(boxes, np.ones(1, np.float32))
    np.testing.assert_allclose(image.shrunk(people).boxes, boxes / 4)
    np.testing.assert_allclose(image.grown(image.shrunk(people)).boxes, boxes)
    beyond = Detections(np.array([[0, 0, 101, 51]], np.float32), np.ones(1, np.float32))
    grown = image.grown(image.inside(beyond))
    np.testing.assert_allclose(grown.boxes, [[0, 0, 403, 201]])


def test_a_truncated_file_is_refused_and_takes_no_memory() -> None:
    made = decoder()
    data = encoded(np.random.default_rng(0).integers(0, 255, (400, 800, 3), np.uint8), "JPEG")
    with pytest.raises(ServiceError, match="does not decode"):
        made.decode(data[: len(data) // 40])
    assert made.budget.used == 0  # type: ignore[attr-defined]


def test_the_whole_one_after_it_needs_no_more_memory_than_alone() -> None:
    """An idle service rejects no image, however large."""
    data = squares(480, 400)
    made = decoder(bound=1000)
    small = made.decode(data)
    assert small.reduction == 4
    with pytest.raises(ServiceError, match="decoded images"):
        made.decode(data, whole=True)  # another's
    whole = made.decode(data, whole=True, instead_of=small)
    del small
    gc.collect()
    assert made.budget.used == whole.pixels.nbytes  # type: ignore[attr-defined]
    del whole
    gc.collect()
    assert made.budget.used == 0  # type: ignore[attr-defined]


def test_the_service_reduces_to_no_less_than_twice_what_its_detector_sees() -> None:
    settings = quiet_settings(detector_size=416)
    assert pipeline_limits(settings, on_cpu=True).least_side == 832
    assert PipelineLimits().least_side == 1280


@pytest.mark.anyio
async def test_the_pipeline_answers_in_pixels_of_the_whole_image(fake: FakeEstimator) -> None:
    data = encoded(marked_image(0x406080, 2400, 2401), "JPEG")
    with stand(fake, least_side=1200) as made:
        result = await made.pipeline.estimate(data)
        assert (result.width, result.height, result.image) == (2400, 2401, None)
        np.testing.assert_allclose(result.poses.boxes, [[0, 0, 2400, 2401]])
        np.testing.assert_allclose(result.poses.keypoints[0, :, 1], (np.arange(17) + 0.5) * 2 - 0.5)

        given = await made.pipeline.estimate(data, boxes=np.array([[9, 9, 2390, 2390]], np.float32))
        np.testing.assert_allclose(given.poses.boxes, [[9, 9, 2390, 2390]])
        np.testing.assert_allclose(given.poses.keypoints[0, 1, 1], 2.5)

        drawn = await made.pipeline.estimate(data, keep_image=True)
        assert drawn.image is not None
        assert drawn.image.shape == (2401, 2400, 3)
        np.testing.assert_allclose(drawn.poses.keypoints[0, :, 1], np.arange(17))


@pytest.mark.anyio
async def test_small_people_have_the_whole_image_decoded(fake: FakeEstimator) -> None:
    """Here the fake's person fills the image, whose half is smaller than a crop."""
    data = encoded(marked_image(0x406080, 300, 400), "JPEG")
    with stand(fake, least_side=200) as made:
        result = await made.pipeline.estimate(data)
        np.testing.assert_allclose(result.poses.boxes, [[0, 0, 300, 400]])
        np.testing.assert_allclose(result.poses.keypoints[0, :, 1], np.arange(17))
        assert fake.detected == [1]
        assert made.value("sdpose_stage_seconds_count", stage="decode") == 2
        decoded_s = made.value("sdpose_stage_seconds_sum", stage="decode")
        assert result.timings_ms["decode"] == pytest.approx(decoded_s * 1e3)


@pytest.fixture(scope="module")
def photograph() -> bytes:
    """bus.jpg at four times its size: 14 megapixels."""
    from ultralytics.utils import ASSETS

    image = cv2.imread(str(ASSETS / "bus.jpg"), cv2.IMREAD_COLOR_RGB)
    assert image is not None
    return encoded(cv2.resize(image, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC), "JPEG")


@pytest.mark.anyio
async def test_real_people_are_the_same(photograph: bytes) -> None:
    estimator = PoseEstimator.from_pretrained()
    limits = ImageLimits()
    assert read_header(photograph, limits).width == 3240
    (expected,) = estimator.estimate([decode_image(photograph, limits)], min_score=0.6)
    with stand(estimator, images=limits) as made:  # type: ignore[arg-type]
        result = await made.pipeline.estimate(photograph, PoseParameters(min_score=0.6))
        assert made.value("sdpose_stage_seconds_count", stage="decode") == 1
        boxes = np.array([PERSON], np.float32) * 4
        given = await made.pipeline.estimate(photograph, boxes=boxes)
    assert len(result.poses) == len(expected) >= 3
    # Relative to the person's height: boxes differ a little, as the detector sees less aliasing.
    heights = expected.boxes[:, 3] - expected.boxes[:, 1]
    moved = np.linalg.norm(result.poses.keypoints - expected.keypoints, axis=-1)
    moved = (moved / heights[:, None])[expected.keypoint_scores > 0.5]
    assert np.median(moved) < 0.01
    assert result.poses.visibility is not None
    assert np.quantile(moved, 0.95) < 0.03
    np.testing.assert_allclose(result.poses.scores, expected.scores, atol=0.05)
    (there,) = estimator.estimate([decode_image(photograph, limits)], [boxes])
    moved = np.linalg.norm(given.poses.keypoints - there.keypoints, axis=-1)
    assert np.median(moved) < 0.005 * (boxes[0, 3] - boxes[0, 1])
