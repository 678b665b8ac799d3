"""What the app accepts, so that one visitor cannot use up the machine."""

from dataclasses import dataclass

from mofme.errors import MofmeError


@dataclass(frozen=True)
class Limits:
    """Each is told to the user when it is met. `away_seconds`: how long a batch or a video goes on while nobody has its
    page open; `waiting_each`: of one client; `stopping_seconds`: how long the app waits for work when it is stopped.
    """

    megapixels: float = 50
    upload_megabytes: int = 200
    batch_pictures: int = 500
    picture_seconds: float = 600
    batch_seconds: float = 3600
    away_seconds: float = 600
    live_seconds: int = 600
    prompt_characters: int = 20_000
    table_megabytes: float = 50
    table_prompts: int = 5000
    table_models: int = 50
    training_seconds: float = 1200
    waiting: int = 20
    waiting_each: int = 8
    stopping_seconds: float = 20

    def check_batch(self, count: int, things: str) -> None:
        """Raises MofmeError if `count` is more than a batch may have."""
        if count > self.batch_pictures:
            told = f"{count} {things} are more than the limit of {self.batch_pictures}"
            raise MofmeError(f"{told}: upload fewer at a time.")
