"""What every tab is given: the engine that does the work, the jobs that run, and the limits that hold."""

from dataclasses import dataclass, field

from mofme.ui.jobs import Engine, Jobs
from mofme.ui.limits import Limits


@dataclass(frozen=True)
class Services:
    """Shared by all tabs of one app."""

    engine: Engine
    limits: Limits = field(default_factory=Limits)
    restoring: Jobs = field(default_factory=Jobs)
    batches: Jobs = field(default_factory=Jobs)
    measuring: Jobs = field(default_factory=Jobs)
