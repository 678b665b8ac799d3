"""Temporal smoothing: what is estimated of every frame as a whole is averaged over the frames before it."""

from torch import Tensor

_MEMORY = 0.95  # of the frames before in the average: it forgets within about a second
_FRAME = "frame"
_CUT = 0.1  # mean difference between two frames, of [0, 1], from which on another scene has begun


class TemporalSmoother:
    """Exponential moving averages of the estimates on one video, by name; all are begun anew at a cut."""

    def __init__(self) -> None:
        # All that it knows, by name: what is estimated, and the last frame. No tensor is ever changed in place.
        self.state: dict[str, Tensor] = {}

    def see(self, thumbnail: Tensor) -> None:
        """The next frame, made small, (3, h, w) in [0, 1]: estimates from now on are of it."""
        last = self.state.get(_FRAME)
        if last is not None and (thumbnail.shape != last.shape or (thumbnail - last.to(thumbnail)).abs().mean() > _CUT):
            self.state.clear()
        self.state[_FRAME] = thumbnail

    def mean(self, name: str, estimate: Tensor) -> Tensor:
        """The average up to this frame, of the same shape as what is estimated of it alone."""
        self.state[name] = estimate.lerp(self.state.get(name, estimate).to(estimate), _MEMORY)
        return self.state[name]
