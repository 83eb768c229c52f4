"""Skeletons: from names, TOML files and COCO categories, and what contradicts itself."""

import json

import pytest

from sdpose_core.skeleton import (
    COCO17,
    DEFAULT_SIGMA,
    READY_MADE,
    Skeleton,
    SkeletonError,
    find_skeleton,
    name_key,
)
from sdpose_core.skeleton.files import skeleton_of, skeleton_of_category
from sdpose_core.skeleton.names import side_of


@pytest.mark.parametrize(
    ("name", "key", "side"),
    [
        ("left_eye", "left_eye", "left"),
        ("Left Eye", "left_eye", "left"),
        ("leftEye", "left_eye", "left"),
        ("LShoulder", "left_shoulder", "left"),
        ("r_hip", "right_hip", "right"),
        ("eye-right", "eye_right", "right"),
        ("lower lip", "lower_lip", "middle"),
        ("left-right", "left_right", "middle"),
        ("手", "手", "middle"),
    ],
)
def test_names_are_compared_whatever_their_spelling(name, key, side):
    assert name_key(name) == key
    assert side_of(name) == side


@pytest.mark.parametrize("name", READY_MADE)
def test_ready_made_skeletons_are_whole(name):
    skeleton = find_skeleton(name)
    assert str(len(skeleton)) == name[-len(str(len(skeleton))) :]
    assert skeleton.name == name
    assert not skeleton.assumed
    assert all(skeleton.mirror[skeleton.mirror[i]] == i for i in range(len(skeleton)))
    assert {end for edge in skeleton.edges for end in edge} <= set(range(len(skeleton)))


def test_mirrored_names_are_partners_in_every_ready_made_body():
    for name in ("coco17", "crowdpose14", "mpii16", "halpe26"):
        skeleton = find_skeleton(name)
        for i, one in enumerate(skeleton.keypoints):
            partner = skeleton.keypoints[skeleton.mirror[i]]
            swapped = {"left": "right", "right": "left"}
            assert partner == "_".join(swapped.get(word, word) for word in one.split("_"))


@pytest.mark.parametrize("name", READY_MADE)
def test_a_skeleton_survives_json(name):
    skeleton = find_skeleton(name)
    assert skeleton_of(json.loads(json.dumps(skeleton.to_dict())), "here") == skeleton


def test_a_toml_file_says_what_names_do_not(tmp_path):
    path = tmp_path / "hammer.toml"
    path.write_text(
        'keypoints = ["head_a", "head_b", "grip"]\n'
        'edges = [["head_a", "grip"]]\nmirror = [["head_a", "head_b"]]\nsigmas = {grip = 0.05}\n'
    )
    hammer = find_skeleton(path)
    assert hammer.name == "hammer"
    assert hammer.mirror == (1, 0, 2)
    assert hammer.edges == ((0, 2),)
    assert hammer.sigmas == (DEFAULT_SIGMA, DEFAULT_SIGMA, 0.05)
    assert hammer.assumed == ("head_a", "head_b")
    assert hammer.sides == ("middle",) * 3
    assert hammer.lower == hammer.upper == hammer.trunk == ()


def test_known_names_have_the_tolerance_that_coco_measured():
    made = Skeleton.make("three", ["RWrist", "Nose", "tail"])
    assert made.sigmas == (0.062, 0.026, DEFAULT_SIGMA)
    assert made.assumed == ("tail",)


def test_halves_follow_the_names_or_what_is_given():
    body = Skeleton.make("body", ["nose", "left_wrist", "hip", "LKnee", "left heel"])
    assert body.lower == (2, 3, 4)
    assert body.upper == (0, 1)
    assert Skeleton.make("legs", ["hip", "knee"]).lower == ()
    assert Skeleton.make("dog", ["nose", "tail"], lower_body=["tail"]).lower == (1,)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"keypoints": []}, "0 keypoints"),
        ({"keypoints": ["a", " "]}, "number 2 has no name"),
        ({"keypoints": ["left eye", "Left_Eye"]}, "'Left_Eye' comes twice"),
        ({"keypoints": ["a", "b"], "edges": [["a", "c"]]}, "'c', which is none of the keypoints"),
        ({"keypoints": ["a", "b"], "edges": [["a"]]}, "expected two names"),
        ({"keypoints": ["a", "b"], "edges": [["a", "a"]]}, "joins a keypoint with itself"),
        (
            {"keypoints": ["a", "b", "c"], "mirror": [["a", "b"], ["b", "c"]]},
            "is not mutual: 'b' is paired with 'a', too",
        ),
        ({"keypoints": ["a", "b"], "sigmas": [0.1]}, "1 sigmas for 2 keypoints"),
        ({"keypoints": ["a", "b"], "sigmas": [0.1, 0]}, "the sigma of 'b' is 0"),
        ({"keypoints": ["a", "b"], "sigmas": {"c": 0.1}}, "'c', which is none of the keypoints"),
        ({"keypoints": "ab"}, "no list of keypoints"),
        ({"keypoints": ["a"], "colour": "red"}, "colour"),
    ],
)
def test_what_contradicts_itself_is_rejected_by_name(values, sentence):
    with pytest.raises(SkeletonError, match=r"^mine\.toml: ") as caught:
        skeleton_of({"name": "mine", **values}, "mine.toml")
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("keypoints = [", "not a readable TOML"), ('points = ["a"]', "unknown 'points'")],
)
def test_a_file_that_is_no_skeleton_is_rejected(tmp_path, text, sentence):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(SkeletonError, match=sentence):
        find_skeleton(path)
    with pytest.raises(SkeletonError, match="none of coco17"):
        find_skeleton("coco18")


def test_a_category_is_a_skeleton_with_edges_from_one():
    made = skeleton_of_category(
        {"name": "dog", "keypoints": ["nose", "l_ear", "r_ear"], "skeleton": [[1, 2], [1, 3]]},
        "dogs.json",
    )
    assert made.name == "dog"
    assert made.edges == ((0, 1), (0, 2))
    assert made.mirror == (0, 2, 1)
    with pytest.raises(SkeletonError, match=r"dogs.json: the edge \[1, 4\] goes to keypoint 4"):
        skeleton_of_category({"keypoints": ["a", "b"], "skeleton": [[1, 4]]}, "dogs.json")
    with pytest.raises(SkeletonError, match="expected two numbers"):
        skeleton_of_category({"keypoints": ["a", "b"], "skeleton": [[1]]}, "dogs.json")


def test_coco_in_its_order_is_coco_however_it_is_spelt():
    names = [name.replace("_", " ").title() for name in COCO17.keypoints]
    assert skeleton_of_category({"name": "person", "keypoints": names}, "here") is COCO17
    other = skeleton_of_category({"name": "person", "keypoints": names[::-1]}, "here")
    assert other.keypoints == tuple(names[::-1])


def test_names_are_ordered_and_compared_not_counted():
    names = list(COCO17.keypoints)[::-1]
    assert COCO17.order_in(names, "f.json") == list(range(17))[::-1]
    with pytest.raises(SkeletonError, match=r"number 1, 'tail', is none of coco17's; expected 17"):
        COCO17.order_in(["tail", *names[1:]], "f.json")
    with pytest.raises(SkeletonError, match="'nose' is missing"):
        COCO17.order_in(names[:-1], "f.json")
