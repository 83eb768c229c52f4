from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Priority(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PRIORITY_UNSPECIFIED: _ClassVar[Priority]
    PRIORITY_HIGH: _ClassVar[Priority]
    PRIORITY_NORMAL: _ClassVar[Priority]
    PRIORITY_LOW: _ClassVar[Priority]

class DropPolicy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DROP_POLICY_UNSPECIFIED: _ClassVar[DropPolicy]
    DROP_POLICY_LATEST: _ClassVar[DropPolicy]
    DROP_POLICY_NONE: _ClassVar[DropPolicy]

class CameraState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CAMERA_STATE_UNSPECIFIED: _ClassVar[CameraState]
    CAMERA_STATE_CONNECTING: _ClassVar[CameraState]
    CAMERA_STATE_LIVE: _ClassVar[CameraState]
    CAMERA_STATE_BROKEN: _ClassVar[CameraState]
    CAMERA_STATE_ENDED: _ClassVar[CameraState]
PRIORITY_UNSPECIFIED: Priority
PRIORITY_HIGH: Priority
PRIORITY_NORMAL: Priority
PRIORITY_LOW: Priority
DROP_POLICY_UNSPECIFIED: DropPolicy
DROP_POLICY_LATEST: DropPolicy
DROP_POLICY_NONE: DropPolicy
CAMERA_STATE_UNSPECIFIED: CameraState
CAMERA_STATE_CONNECTING: CameraState
CAMERA_STATE_LIVE: CameraState
CAMERA_STATE_BROKEN: CameraState
CAMERA_STATE_ENDED: CameraState

class Box(_message.Message):
    __slots__ = ("x", "y", "width", "height")
    X_FIELD_NUMBER: _ClassVar[int]
    Y_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    x: float
    y: float
    width: float
    height: float
    def __init__(self, x: _Optional[float] = ..., y: _Optional[float] = ..., width: _Optional[float] = ..., height: _Optional[float] = ...) -> None: ...

class PoseOptions(_message.Message):
    __slots__ = ("max_people", "min_score", "min_keypoint_score", "cycles", "flip_test", "priority", "suppress")
    MAX_PEOPLE_FIELD_NUMBER: _ClassVar[int]
    MIN_SCORE_FIELD_NUMBER: _ClassVar[int]
    MIN_KEYPOINT_SCORE_FIELD_NUMBER: _ClassVar[int]
    CYCLES_FIELD_NUMBER: _ClassVar[int]
    FLIP_TEST_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    SUPPRESS_FIELD_NUMBER: _ClassVar[int]
    max_people: int
    min_score: float
    min_keypoint_score: float
    cycles: int
    flip_test: bool
    priority: Priority
    suppress: bool
    def __init__(self, max_people: _Optional[int] = ..., min_score: _Optional[float] = ..., min_keypoint_score: _Optional[float] = ..., cycles: _Optional[int] = ..., flip_test: _Optional[bool] = ..., priority: _Optional[_Union[Priority, str]] = ..., suppress: _Optional[bool] = ...) -> None: ...

class Boxes(_message.Message):
    __slots__ = ("boxes",)
    BOXES_FIELD_NUMBER: _ClassVar[int]
    boxes: _containers.RepeatedCompositeFieldContainer[Box]
    def __init__(self, boxes: _Optional[_Iterable[_Union[Box, _Mapping]]] = ...) -> None: ...

class EstimatePoseRequest(_message.Message):
    __slots__ = ("image", "options", "boxes")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    BOXES_FIELD_NUMBER: _ClassVar[int]
    image: bytes
    options: PoseOptions
    boxes: Boxes
    def __init__(self, image: _Optional[bytes] = ..., options: _Optional[_Union[PoseOptions, _Mapping]] = ..., boxes: _Optional[_Union[Boxes, _Mapping]] = ...) -> None: ...

class Keypoint(_message.Message):
    __slots__ = ("name", "x", "y", "score", "visibility")
    NAME_FIELD_NUMBER: _ClassVar[int]
    X_FIELD_NUMBER: _ClassVar[int]
    Y_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    VISIBILITY_FIELD_NUMBER: _ClassVar[int]
    name: str
    x: float
    y: float
    score: float
    visibility: float
    def __init__(self, name: _Optional[str] = ..., x: _Optional[float] = ..., y: _Optional[float] = ..., score: _Optional[float] = ..., visibility: _Optional[float] = ...) -> None: ...

class Person(_message.Message):
    __slots__ = ("box", "score", "id", "keypoints")
    BOX_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    KEYPOINTS_FIELD_NUMBER: _ClassVar[int]
    box: Box
    score: float
    id: int
    keypoints: _containers.RepeatedCompositeFieldContainer[Keypoint]
    def __init__(self, box: _Optional[_Union[Box, _Mapping]] = ..., score: _Optional[float] = ..., id: _Optional[int] = ..., keypoints: _Optional[_Iterable[_Union[Keypoint, _Mapping]]] = ...) -> None: ...

class ImageSize(_message.Message):
    __slots__ = ("width", "height")
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    width: int
    height: int
    def __init__(self, width: _Optional[int] = ..., height: _Optional[int] = ...) -> None: ...

class Models(_message.Message):
    __slots__ = ("student", "detector", "backend", "device")
    STUDENT_FIELD_NUMBER: _ClassVar[int]
    DETECTOR_FIELD_NUMBER: _ClassVar[int]
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    student: str
    detector: str
    backend: str
    device: str
    def __init__(self, student: _Optional[str] = ..., detector: _Optional[str] = ..., backend: _Optional[str] = ..., device: _Optional[str] = ...) -> None: ...

class EstimatePoseResponse(_message.Message):
    __slots__ = ("people", "image", "timings_ms", "models", "request_id")
    class TimingsMsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    PEOPLE_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_MS_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    people: _containers.RepeatedCompositeFieldContainer[Person]
    image: ImageSize
    timings_ms: _containers.ScalarMap[str, float]
    models: Models
    request_id: str
    def __init__(self, people: _Optional[_Iterable[_Union[Person, _Mapping]]] = ..., image: _Optional[_Union[ImageSize, _Mapping]] = ..., timings_ms: _Optional[_Mapping[str, float]] = ..., models: _Optional[_Union[Models, _Mapping]] = ..., request_id: _Optional[str] = ...) -> None: ...

class StreamConfig(_message.Message):
    __slots__ = ("options", "tracking", "smoothing", "detect_every", "drop", "resume_token")
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    TRACKING_FIELD_NUMBER: _ClassVar[int]
    SMOOTHING_FIELD_NUMBER: _ClassVar[int]
    DETECT_EVERY_FIELD_NUMBER: _ClassVar[int]
    DROP_FIELD_NUMBER: _ClassVar[int]
    RESUME_TOKEN_FIELD_NUMBER: _ClassVar[int]
    options: PoseOptions
    tracking: bool
    smoothing: bool
    detect_every: int
    drop: DropPolicy
    resume_token: str
    def __init__(self, options: _Optional[_Union[PoseOptions, _Mapping]] = ..., tracking: _Optional[bool] = ..., smoothing: _Optional[bool] = ..., detect_every: _Optional[int] = ..., drop: _Optional[_Union[DropPolicy, str]] = ..., resume_token: _Optional[str] = ...) -> None: ...

class StreamPoseRequest(_message.Message):
    __slots__ = ("image", "sequence", "timestamp", "config", "boxes")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    BOXES_FIELD_NUMBER: _ClassVar[int]
    image: bytes
    sequence: int
    timestamp: float
    config: StreamConfig
    boxes: Boxes
    def __init__(self, image: _Optional[bytes] = ..., sequence: _Optional[int] = ..., timestamp: _Optional[float] = ..., config: _Optional[_Union[StreamConfig, _Mapping]] = ..., boxes: _Optional[_Union[Boxes, _Mapping]] = ...) -> None: ...

class FrameError(_message.Message):
    __slots__ = ("code", "message", "field")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    code: str
    message: str
    field: str
    def __init__(self, code: _Optional[str] = ..., message: _Optional[str] = ..., field: _Optional[str] = ...) -> None: ...

class StreamPoseResponse(_message.Message):
    __slots__ = ("sequence", "timestamp", "dropped", "result", "error", "resume_token")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    RESUME_TOKEN_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    timestamp: float
    dropped: int
    result: EstimatePoseResponse
    error: FrameError
    resume_token: str
    def __init__(self, sequence: _Optional[int] = ..., timestamp: _Optional[float] = ..., dropped: _Optional[int] = ..., result: _Optional[_Union[EstimatePoseResponse, _Mapping]] = ..., error: _Optional[_Union[FrameError, _Mapping]] = ..., resume_token: _Optional[str] = ...) -> None: ...

class WatchCameraRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class CameraStatus(_message.Message):
    __slots__ = ("name", "address", "state", "problem", "image", "frames", "errors", "dropped", "reconnects", "people", "watchers")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    RECONNECTS_FIELD_NUMBER: _ClassVar[int]
    PEOPLE_FIELD_NUMBER: _ClassVar[int]
    WATCHERS_FIELD_NUMBER: _ClassVar[int]
    name: str
    address: str
    state: CameraState
    problem: str
    image: ImageSize
    frames: int
    errors: int
    dropped: int
    reconnects: int
    people: int
    watchers: int
    def __init__(self, name: _Optional[str] = ..., address: _Optional[str] = ..., state: _Optional[_Union[CameraState, str]] = ..., problem: _Optional[str] = ..., image: _Optional[_Union[ImageSize, _Mapping]] = ..., frames: _Optional[int] = ..., errors: _Optional[int] = ..., dropped: _Optional[int] = ..., reconnects: _Optional[int] = ..., people: _Optional[int] = ..., watchers: _Optional[int] = ...) -> None: ...

class WatchCameraResponse(_message.Message):
    __slots__ = ("status", "frame")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    FRAME_FIELD_NUMBER: _ClassVar[int]
    status: CameraStatus
    frame: StreamPoseResponse
    def __init__(self, status: _Optional[_Union[CameraStatus, _Mapping]] = ..., frame: _Optional[_Union[StreamPoseResponse, _Mapping]] = ...) -> None: ...
