"""Temporal smoothing: what is estimated of every frame as a whole is averaged over the frames before it."""

from torch import Tensor

_MEMORY = 0.95  # of the frames before in the average: it forgets within about a second
_CUT = 0.1  # mean difference between two frames, of [0, 1], from which on another scene has begun


class TemporalSmoother:
    """Exponential moving averages of the estimates on one video, by name; all are begun anew at a cut."""

    def __init__(self) -> None:
        self._last: Tensor | None = None
        self._means: dict[str, Tensor] = {}

    def see(self, thumbnail: Tensor) -> None:
        """The next frame, made small, (3, h, w) in [0, 1]: estimates from now on are of it."""
        if self._last is not None and (
            thumbnail.shape != self._last.shape or (thumbnail - self._last).abs().mean() > _CUT
        ):
            self._means.clear()
        self._last = thumbnail

    def mean(self, name: str, estimate: Tensor) -> Tensor:
        """The average up to this frame, of the same shape as what is estimated of it alone."""
        self._means[name] = estimate.lerp(self._means.get(name, estimate), _MEMORY)
        return self._means[name]
