"""What the endpoint is told in its YAML file: backends, the rule of choice, fallbacks, cache and limits."""

import os
from collections import Counter
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from mofme.errors import ConfigError

AUTO = "auto"  # the model that clients ask for to be routed, by its own name or an older one
ROUTED_NAMES = (AUTO, "mofme-router", "")

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Price = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class Backend(_Settings):
    """One model at one OpenAI-compatible address. Prices in dollars per million tokens, times in seconds."""

    name: Annotated[str, Field(min_length=1)]
    base_url: str
    model: Annotated[str, Field(min_length=1)]
    key_env: str | None = None
    price_in: Price
    price_out: Price
    timeout: Positive = 120.0  # until the whole answer, or of a stream until each next event
    max_concurrent: Annotated[int, Field(ge=1)] = 100
    pictures: bool = True  # whether it takes them; off: it is not asked where a message holds one
    context: Annotated[int, Field(ge=1)] | None = None  # tokens, in and out: it is not asked for more than fit
    stream_usage: bool = True  # ask streams for their token counts; off for servers that refuse `stream_options`

    @field_validator("name")
    @classmethod
    def _fits_a_header(cls, value: str) -> str:
        if not (value.isascii() and value.isprintable()):
            raise ValueError("names go into HTTP headers: use plain letters, digits and signs")
        return value

    @field_validator("base_url")
    @classmethod
    def _address(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("write a whole address like https://api.openai.com/v1")
        if parts.username or parts.password or parts.query:
            raise ValueError("leave keys out of the address: name the variable that holds the key in key_env")
        if parts.path.rstrip("/").endswith("/completions"):
            raise ValueError("leave /chat/completions out: it is added to the address")
        _ = parts.port  # raises ValueError for one that cannot be
        return value.rstrip("/")

    @property
    def key(self) -> str | None:
        """Read from the environment at each use, so that no printed or logged setting can hold it."""
        return os.environ.get(self.key_env) if self.key_env else None

    def dollars(self, tokens_in: int, tokens_out: int) -> float:
        return (tokens_in * self.price_in + tokens_out * self.price_out) / 1e6


class Rule(_Settings):
    """How a model is chosen; exactly one is given."""

    cost_weight: Share | None = None  # 0: quality only, 1: cost only
    budget: Positive | None = None  # dollars a query, at most
    quality: Share | None = None  # expected quality, at least

    @model_validator(mode="after")
    def _one(self) -> "Rule":
        if len(self.model_fields_set) != 1 or None in (getattr(self, name) for name in self.model_fields_set):
            raise ValueError("give exactly one of cost_weight, budget and quality")
        return self

    def dial(self) -> dict[str, float]:
        """The rule as the router's arguments."""
        return self.model_dump(exclude_none=True)


class CacheSettings(_Settings):
    """Off unless asked for: a neighbour's answer may be wrong. `similarity` 1 takes the same words only."""

    enabled: bool = False
    similarity: Annotated[float, Field(ge=0.8, le=1)] = 0.97  # cosine of the last user messages
    size: Annotated[int, Field(ge=1)] = 1000  # answers kept
    ttl: Positive = 3600.0  # seconds an answer is good for


class Limits(_Settings):
    """Beyond these a request is refused (413, 503) or ended (504)."""

    body_bytes: Annotated[int, Field(ge=1000, le=256_000_000)] = 32_000_000  # a phone photo in base64 is 10 to 15 MB
    concurrency: Annotated[int, Field(ge=1)] = 256
    seconds: Positive = 600.0


class ServingConfig(_Settings):
    """`best` is what savings are counted against, and what answers where routing fails: the dearest by default."""

    backends: tuple[Backend, ...]
    rule: Rule
    fallbacks: tuple[str, ...] = ()  # tried in this order, then the rest as listed
    best: str | None = None
    cache: CacheSettings = CacheSettings()
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 8100
    token_env: str | None = None  # the variable that holds the token clients must send
    limits: Limits = Limits()

    @model_validator(mode="after")
    def _names(self) -> "ServingConfig":
        names = [backend.name for backend in self.backends]
        if not names:
            raise ValueError("backends is empty: list at least one")
        if repeated := [name for name, count in Counter(names).items() if count > 1]:
            raise ValueError(f"two backends are named {repeated[0]!r}: give each its own name")
        if taken := [name for name in names if name in ROUTED_NAMES]:
            raise ValueError(f"no backend can be named {taken[0]!r}: clients ask for it to be routed")
        for field, wanted in (("fallbacks", self.fallbacks), ("best", (self.best,) if self.best else ())):
            if unknown := [name for name in wanted if name not in names]:
                raise ValueError(f"{field} names {unknown[0]!r}, which is no backend: choose from {', '.join(names)}")
        return self

    @model_validator(mode="after")
    def _guarded(self) -> "ServingConfig":
        if not is_local(self.host) and not self.token_env:
            raise ValueError(
                f"host {self.host} lets other machines spend your money: set token_env to the name of an environment "
                "variable that holds a token, or host to 127.0.0.1"
            )
        named = [(f"backend {backend.name}: key_env", backend.key_env) for backend in self.backends]
        for field, variable in [*named, ("token_env", self.token_env)]:
            if variable and not variable.isidentifier():  # perhaps the key itself, so it is not repeated here
                raise ValueError(f"{field} must be the name of an environment variable, not what it holds")
            if variable and not os.environ.get(variable):
                raise ValueError(f"{field} names the environment variable {variable}, which is not set: export it")
            if variable and not all("!" <= sign <= "~" for sign in os.environ[variable]):
                raise ValueError(
                    f"{field}: what {variable} holds cannot be sent: it has a blank, a line break or a sign beyond "
                    "ASCII in it; export it again"
                )
        return self

    @property
    def token(self) -> str | None:
        """What clients must send, from the environment."""
        return os.environ.get(self.token_env) if self.token_env else None

    @property
    def best_backend(self) -> Backend:
        if self.best:
            return next(backend for backend in self.backends if backend.name == self.best)
        return max(self.backends, key=lambda backend: backend.price_in + backend.price_out)


def is_local(host: str) -> bool:
    """Whether only this machine can reach a server that listens there."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Of two settings of one name YAML would take the last one in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"{key.value} stands there twice", problem_mark=key.start_mark)
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else "")
        return super().construct_mapping(node, deep)


def load_config(path: Path, **changes: Any) -> ServingConfig:
    """Read and check a YAML file; `changes` (host, port) go before what it says.

    Raises ConfigError, naming file and field, if it cannot be read or used.
    """
    try:
        plain = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not a text file in UTF-8: save it as one") from None
    except yaml.MarkedYAMLError as error:
        line = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{path} is not YAML{line}: {error.problem}") from None
    except (yaml.YAMLError, RecursionError):
        raise ConfigError(f"{path} is not YAML: begin again from assets/serve.yaml") from None
    if not isinstance(plain, dict):
        raise ConfigError(f"{path} holds no settings: begin with 'backends:', as assets/serve.yaml does")
    try:
        return ServingConfig.model_validate({**plain, **changes})
    except ValidationError as error:
        raise ConfigError("\n".join(f"{path}: {_sentence(problem)}" for problem in error.errors())) from None


def _sentence(problem: Any) -> str:
    field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in problem["loc"]).lstrip(".")
    match problem["type"]:
        case "missing":
            return f"{field} is missing: add it"
        case "extra_forbidden":
            return f"{field} is no setting: check its spelling or remove it"
        case "value_error":
            return f"{field}: {problem['ctx']['error']}" if field else str(problem["ctx"]["error"])
        case _:  # of what was given only numbers are repeated: a text may be a key in the wrong place
            given, words = problem["input"], problem["msg"].lower().replace("tuple", "list")
            return f"{field}: {words}" + (f", got {given}" if isinstance(given, int | float) else "")
