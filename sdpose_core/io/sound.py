"""The sound of a video, taken over into a file that is being written."""

from __future__ import annotations

from fractions import Fraction
from typing import Any, Final

_KEPT: Final = ("aac", "mp3", "ac3", "eac3", "opus", "flac", "alac")
"""Codecs that players expect in an mp4 file; other sound is encoded as AAC."""
_FRAME: Final = 1024
"""Samples of a frame of AAC."""
_GAP_S: Final = 0.1
"""Silence from so many seconds on is kept; less is the roughness of a container's clock."""


class SoundTrack:
    """A track of an open mp4 container of PyAV, before anything is written to it.

    Args:
        container: gets the track.
        source: the audio stream that its packets come from.

    Raises:
        av.FFmpegError: as all methods.
        ValueError: as all methods; the sound is of a kind that cannot be written.
    """

    def __init__(self, container: Any, source: Any) -> None:
        self._container = container
        self._encoded = source.codec_context.codec.canonical_name not in _KEPT
        self._next = 0  # no packet, or no sample if encoded, is before it
        if not self._encoded:
            self._track = container.add_stream_from_template(source)
            return
        import av

        self._rate: int = source.rate or 48_000
        layout = "mono" if source.channels == 1 else "stereo"
        self._track = container.add_stream("aac", rate=self._rate, layout=layout)
        self._resampler = av.AudioResampler("fltp", layout, self._rate, _FRAME)

    def add(self, packet: Any, time_s: float) -> None:
        """A packet that is heard at this time of the new file.

        Before its start, or not later than the one before, it is left out; so is a damaged one
        that is encoded again.
        """
        if self._encoded:
            for frame in _decoded(packet):
                at = round(time_s * self._rate)
                if at >= 0:
                    if at - self._next > self._rate * _GAP_S:
                        self._next = at
                    frame.pts = None  # the resampler follows no jumps
                    self._encode(frame)
                time_s += frame.samples / frame.sample_rate
            return
        at = round(time_s / packet.time_base)
        if at >= self._next:
            self._next = at + 1
            packet.pts = packet.dts = at
            packet.stream = self._track
            self._container.mux(packet)

    def _encode(self, frame: Any) -> None:
        for part in self._resampler.resample(frame):
            part.pts, part.time_base = self._next, Fraction(1, self._rate)
            self._next += part.samples
            self._mux(part)

    def finish(self) -> None:
        """No packet follows."""
        if self._encoded:
            self._encode(None)
            self._mux(None)

    def _mux(self, frame: Any) -> None:
        for packet in self._track.encode(frame):
            # What the encoder puts before the start would move the video, in fragments without an
            # edit list.
            if packet.pts >= 0:
                self._container.mux(packet)


def _decoded(packet: Any) -> list[Any]:
    import av

    try:
        return list(packet.decode())
    except av.InvalidDataError:
        return []
