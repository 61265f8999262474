"""The settings of one run: all that its result depends on, each checked for its type and range. Needs no Keras."""

import hashlib
import json
from typing import Annotated, Any, Literal

from methods import LOSSES, METHODS, NETWORKS, NOISES, TERMS, terms_of
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

Count = Annotated[int, Field(ge=1, le=1_000_000)]
Positive = Annotated[float, Field(gt=0, le=1e6)]
NotNegative = Annotated[float, Field(ge=0, le=1e6)]
Share = Annotated[float, Field(ge=0, lt=1)]
Temperature = Annotated[float, Field(ge=1e-4, le=1e4)]  # As the terms have it.
Layers = str | Annotated[list[str], Field(min_length=1)]
# The forms that terms have by default. Result lines name them, and others that were tried and removed.
DEFAULT_FORMS = ("dropout", "outputs", "cosine")


class _Strict(BaseModel):
    """A number is no text, a flag is no number, 1.6 is no whole number, NaN is nothing, and no name is unknown."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)


class ScheduleSettings(_Strict):
    """Arguments of a schedule of keras_collab.schedules, with epochs for its steps."""

    value: NotNegative
    epochs: Positive
    begin: Annotated[int, Field(ge=0)] = 0


Schedule = Annotated[dict[Literal["Ramp", "RampDown"], ScheduleSettings], Field(min_length=1, max_length=1)]
Weight = NotNegative | Schedule


class _TermSettings(_Strict):
    weight: Weight = 0.0
    form: str = ""  # Of an old line only.


class OutputSettings(_TermSettings):
    parts: Count = 2
    rate: Annotated[float, Field(gt=0, lt=1)] = 0.5
    temperature: Temperature = 2.0


class IntermediateSettings(_TermSettings):
    temperature: Temperature = 0.1
    layers: Layers = "auto"
    target: Literal["outputs", "deepest"] = "outputs"


class RepresentationSettings(_TermSettings):
    layers: Layers = "auto"
    max_positions: Count = 4
    max_channels: Annotated[int, Field(ge=2)] = 32


class KernelSettings(_TermSettings):
    layers: Layers = "auto"
    max_filters: Annotated[int, Field(ge=2)] = 8


TERM_SETTINGS = dict(
    zip(TERMS, (OutputSettings, IntermediateSettings, RepresentationSettings, KernelSettings), strict=True)
)


def _todays_words(arguments):
    """A term's arguments without the name of a form that is the default now; the relational form is a target now."""
    arguments = dict(arguments)
    form = arguments.pop("form", "cosine")
    if form == "relational":
        arguments["target"] = "deepest"
    elif form not in DEFAULT_FORMS:
        arguments["form"] = form
    return arguments


class Settings(_Strict):
    """All that a run depends on.

    The fields of `IDENTITY` tell runs apart. Two runs that differ in the others only are not to be compared, and not
    kept in one file.
    """

    dataset: Annotated[str, Field(min_length=1)]
    network: Literal[NETWORKS]
    method: Literal[METHODS] = "plain"
    train_size: Count | None = None  # None for all.
    width: Count | None = None  # None for the network's own.
    noise: Literal[NOISES] = "none"
    noise_rate: Annotated[float, Field(ge=0, le=1)] = 0.0
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    epochs: Count = 40
    batch_size: Count = 128
    learning_rate: Positive = 0.1
    weight_decay: NotNegative = 5e-4
    dropout: Share = 0.0
    augment: bool = True
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.1
    clean_validation: bool = False  # True labels to validate with; they are at hand only where defaults are chosen.
    validate_every: Count = 1  # In epochs, counted back from the last one.
    loss: Literal[LOSSES] | None = None  # None for cross-entropy, or what the method says.
    epochs_factor: Positive = 1.0  # Multiplies epochs, for a control that trains longer or shorter than the others.
    terms: dict[Literal[TERMS], dict[str, Any]] = {}  # Arguments of terms: {"kernel_similarity": {"weight": 5.0}}.
    balance: Share = 0.0  # The share that keras_collab.balance gives each term before training; 0 for the weights.
    variant: str = ""  # A name for what differs from other runs of the same method.

    @field_validator("terms")
    @classmethod
    def _check_terms(cls, terms):
        checked = {}
        for name, arguments in terms.items():
            try:
                settings = TERM_SETTINGS[name].model_validate(_todays_words(arguments))
            except ValidationError as error:
                raise ValueError(f"{name}: {explained(error, TERM_SETTINGS[name])}") from None
            checked[name] = settings.model_dump(exclude_unset=True)
        return checked

    @model_validator(mode="after")
    def _check_together(self):
        if (self.noise == "none") != (self.noise_rate == 0):
            raise ValueError(
                f"noise_rate must be 0 with noise = 'none', and only there. "
                f"Received: noise={self.noise!r}, noise_rate={self.noise_rate!r}."
            )
        if self.all_epochs < 1:
            raise ValueError(
                f"epochs times epochs_factor must be 1 or more. "
                f"Received: epochs={self.epochs!r}, epochs_factor={self.epochs_factor!r}."
            )
        allowed = terms_of(self.method)
        if self.balance and not allowed:
            raise ValueError(f"balance sets weights of terms, which {self.method!r} has none of.")
        if set(self.terms) - set(allowed) or (self.method == "terms" and not self.terms):
            raise ValueError(
                f"terms of method {self.method!r} must be some of {', '.join(allowed) or 'none'}. "
                f"Received: {list(self.terms)}."
            )
        return self

    @property
    def all_epochs(self):
        return round(self.epochs * self.epochs_factor)

    @property
    def identity(self):
        return tuple(getattr(self, name) for name in IDENTITY)

    @property
    def retired(self):
        """The form of a term that was removed, if the run has one: its result is read, and never made again."""
        for arguments in self.terms.values():
            if "form" in arguments:
                return arguments["form"]
        return None

    @property
    def place(self):
        noise = "" if self.noise == "none" else f" {self.noise} {self.noise_rate:.0%}"
        return f"{self.dataset} {self.train_size or 'all'} {self.network}{noise}"

    @property
    def label(self):
        method = f"{self.method} ({self.variant})" if self.variant else self.method
        return f"{self.place} {method} seed {self.seed}"

    @property
    def digest(self):
        """The name of the run's folder."""
        return hashlib.sha256(json.dumps(self.model_dump(), sort_keys=True).encode()).hexdigest()[:16]


IDENTITY = ("dataset", "network", "method", "variant", "train_size", "width", "noise", "noise_rate", "seed")


def explained(error, model=Settings):
    """One fault of a pydantic ValidationError of a model, in one sentence: that which lies deepest."""
    fault = max(error.errors(include_url=False), key=lambda fault: len(fault["loc"]))
    name = ".".join(map(str, fault["loc"]))
    if fault["type"] == "extra_forbidden":
        return f"There is no setting {name!r}. Settings: {', '.join(model.model_fields)}."
    if fault["type"] == "value_error":
        return str(fault["ctx"]["error"])
    return f"{name}: {fault['msg']}. Received: {fault['input']!r}."
