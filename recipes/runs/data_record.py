"""What a run knows of its data: `data.json` in its folder.

It is written when the run is created. By it the run is sampled from without its data, and data are compared with it
whenever they are asked for: names of the classes, in their order, the number of images of each, and their fingerprints
(`fingerprint.py` says what these cover), the shape of a state, and how states become pixels.
"""

from typing import Annotated, Any, Literal, Self

import torch
from pydantic import Field, ValidationError, model_validator
from torch import Tensor

from ..data.absent import AbsentImages
from ..data.classes import check_labels
from ..data.fingerprint import MAX_FILES_READ, fingerprint
from ..data.images import Images, Split
from ..data.latents.lightningdit import NormalizedDecoder
from ..data.latents.vae import Decoder
from ..experiment.components import Component
from ..support.errors import UserError
from ..support.schema import Section
from .data_paths import absolute_paths, existing_path, moved_hint, with_existing_paths
from .decoder_record import DecoderRecord

FILE_NAME = "data.json"
MAX_REPORTED = 5
"""Differences that a line names, at most."""
Count = Annotated[int, Field(ge=0)]
Side = Annotated[int, Field(ge=1, le=2**16)]


class ClassRecord(Section):
    """The images of a class: how many, and their fingerprint, None if the data tell of none."""

    count: Count
    fingerprint: str | None


class DataRecord(Section):
    """What is known of data."""

    format: Literal[1] = 1
    places: dict[str, str]
    """Where things lay when the record was written, absolute, by key."""
    shape: tuple[Side, Side, Side]
    """(C, H, W) of a state."""
    classes: tuple[str, ...]
    decoder: DecoderRecord
    training: tuple[ClassRecord, ...]
    """By class; one of all images, if there are no classes; none, if the data are absent."""
    heldout: tuple[ClassRecord, ...]

    @model_validator(mode="after")
    def _fits(self) -> Self:
        """Refuse parts that do not go together: the file may come from anywhere."""
        for part in (self.training, self.heldout):
            if len(part) not in (0, max(1, len(self.classes))):
                raise ValueError(f"there are {len(self.classes)} classes, and images of {len(part)}")
        if {len(self.decoder.mean), len(self.decoder.std)} not in ({0}, {self.shape[0]}):
            raise ValueError("the decoder should have a mean and a std for each channel, or none")
        return self

    @classmethod
    def of(cls, data: Component, split: Split) -> "DataRecord":
        """Return the record of data that a recipe's component has built."""
        decoder = DecoderRecord.of(split.decode)
        training, heldout = (_by_class(images, len(split.classes)) for images in (split.training, split.heldout))
        return cls(
            places=absolute_paths(data, decoder.vae),
            shape=split.training.shape,
            classes=split.classes,
            decoder=decoder,
            training=training,
            heldout=heldout,
        )

    def split(self, data: Component) -> Split | None:
        """Return the data without their images, to sample by; None if only the data themselves say what pixels are."""
        if self.decoder.kind == "own":
            return None
        vae = str(getattr(data.fields, "vae", "auto"))
        source = self.decoder.vae if vae == "auto" else vae
        decode = self.decoder.build(existing_path(source, self.places.get("vae")))
        training, heldout = (
            AbsentImages(self.shape, sum(one.count for one in part) if part else None, *problem)
            for part, problem in (
                (self.training, (WITHOUT_IMAGES,) if self.training else ()),
                (self.heldout, (WITHOUT_IMAGES,) if self.training else ()),
            )
        )
        return Split(training, heldout, self.classes, decode)

    @classmethod
    def read(cls, content: bytes) -> "DataRecord":
        """Return the record that was written.

        Raises:
            ValueError: it is none; in one line.
        """
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise ValueError(f"{where}: {first['msg']}" if where else first["msg"]) from None

    def differences(self, split: Split, *, heldout: bool = False) -> list[str]:
        """Return in which ways data are others than these, in words; of images, those to train on or those held out."""
        found = []
        if self.training and tuple(split.training.shape) != self.shape:
            found.append(f"states were {_shape(self.shape)} and are {_shape(split.training.shape)}")
        decoder = DecoderRecord.of(split.decode)
        for key in ("kind", "scale", "shift", "mean", "std", "multiplier", "expected"):
            was, now = getattr(self.decoder, key), getattr(decoder, key)
            if was != now:
                found.append(f"the decoder's {key} was {_short(was)} and is {_short(now)}")
        was_by_class, images = (self.heldout, split.heldout) if heldout else (self.training, split.training)
        if not was_by_class:
            return found
        was_of = dict(zip(self.classes or ("",), was_by_class, strict=True))
        now_of = dict(zip(split.classes or ("",), _by_class(images, len(split.classes)), strict=True))
        return found + _class_differences(was_of, now_of)

    def without_unreadable(self, split: Split) -> "DataRecord":
        """Return the record as that of data of which unreadable images are left out: fewer of the same classes."""
        if self.classes != split.classes:
            return self
        now = {"training": split.training, "heldout": split.heldout}
        parts = {key: _by_class(images, len(split.classes)) for key, images in now.items()}
        fewer = {
            key: tuple(one if one.count < was.count else was for was, one in zip(getattr(self, key), part, strict=True))
            for key, part in parts.items()
            if len(part) == len(getattr(self, key))
        }
        return self.model_copy(update=fewer)

    def moved(self, data: Component, split: Split) -> "DataRecord":
        """Return the record with the places where things lie now."""
        now = absolute_paths(with_existing_paths(data, self.places), DecoderRecord.of(split.decode).vae)
        return self.model_copy(update={"places": self.places | now})


WITHOUT_IMAGES = "this needs the images that the run was trained on, and asked for their shape alone"


def open_data(data: Component, record: DataRecord | None) -> Split:
    """Return the data of a recipe; a relative place that is not to be found is looked for where it was at first.

    Raises:
        UserError: there are none, or the component makes something else.
    """
    places = {} if record is None else record.places
    try:
        split = with_existing_paths(data, places).build()
    except UserError as problem:
        raise UserError(f"{problem}{moved_hint(data)}" if record is not None else str(problem)) from None
    if not isinstance(split, Split):
        raise UserError(f"data = {data.kind} returns a {type(split).__name__}, not a Split")
    if ":" in data.kind:
        split = check_labels(split, f"data = {data.kind}")
    own = split.decode.decoder if isinstance(split.decode, NormalizedDecoder) else split.decode
    if record is not None and isinstance(own, Decoder):
        own.source = existing_path(own.source, places.get("vae"))
    return split


def _by_class(images: Images, classes: int) -> tuple[ClassRecord, ...]:
    """Return the record of the images of each class, or of all if there are no classes; nothing of absent ones."""
    if isinstance(images, AbsentImages):
        return ()
    if not classes:
        return (ClassRecord(count=len(images), fingerprint=fingerprint(images)),)
    order = torch.argsort(images.labels, stable=True)
    counts = torch.bincount(images.labels, minlength=classes)[:classes]
    sample = max(1, MAX_FILES_READ // classes)
    members: tuple[Tensor, ...] = torch.split(order[: int(counts.sum())], counts.tolist())
    return tuple(ClassRecord(count=len(some), fingerprint=fingerprint(images, some, sample)) for some in members)


def _class_differences(was: dict[str, ClassRecord], now: dict[str, ClassRecord]) -> list[str]:
    """Return in which ways the images of classes differ."""
    gone, new = [name for name in was if name not in now], [name for name in now if name not in was]
    found = []
    for name in list(gone):
        same = [other for other in new if now[other] == was[name] and was[name].fingerprint and was[name].count]
        if same:
            found.append(f"class {name!r} is called {same[0]!r} now")
            gone.remove(name)
            new.remove(same[0])
    found += [f"class {name!r} is missing" for name in gone] + [f"class {name!r} is new" for name in new]
    both = [name for name in was if name in now]
    counts = [
        f"{_class_prefix(name)}{was[name].count:,} images were there and {now[name].count:,} are"
        for name in both
        if was[name].count != now[name].count
    ]
    found += counts
    if not found and [*was] != [*now]:
        found.append("the classes are in another order")
    if not found:
        known = [name for name in both if was[name].fingerprint and now[name].fingerprint]
        found += [f"{_class_prefix(name)}images are others" for name in known if was[name] != now[name]]
    return found


def _class_prefix(name: str) -> str:
    return f"of class {name!r} " if name else ""


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _short(value: Any) -> str:
    said = str(value)
    return said if len(said) < 60 else f"{said[:50]}..."


def join_differences(differences: list[str]) -> str:
    """Return differences as one line."""
    more = f" and {len(differences) - MAX_REPORTED} more" if len(differences) > MAX_REPORTED else ""
    return "; ".join(differences[:MAX_REPORTED]) + more
