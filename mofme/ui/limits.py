"""What the app accepts, so that one visitor cannot use up the machine."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Largest picture, upload and batch, longest work and queue. Every limit is told to the user when it is met."""

    megapixels: float = 50
    upload_megabytes: int = 200
    batch_pictures: int = 500
    picture_seconds: float = 600
    batch_seconds: float = 3600
    waiting: int = 20
