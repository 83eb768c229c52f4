"""People over time: identities and steady joints, one tracker a stream."""

from sdpose_core.tracking.following import Following
from sdpose_core.tracking.people import PeopleTracker, TrackingConfig
from sdpose_core.tracking.smoothing import Smoothing

__all__ = ["Following", "PeopleTracker", "Smoothing", "TrackingConfig"]
