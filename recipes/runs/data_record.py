"""The record of a run's data: `data.json` in its folder.

It is written when the run is created, and holds the shape of a state, the decoder, the names of the classes in order,
and for each class the number of images and their fingerprint (`data/fingerprint.py`). With the record, a run is sampled
without its data; and data are compared with the record whenever they are loaded.
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
"""The number of differences that a message lists."""
Count = Annotated[int, Field(ge=0)]
Side = Annotated[int, Field(ge=1, le=2**16)]


class ClassRecord(Section):
    """The number of images of a class and their fingerprint, which is None if the data have none."""

    count: Count
    fingerprint: str | None


class DataRecord(Section):
    """The content of `data.json`."""

    format: Literal[1] = 1
    places: dict[str, str]
    """Absolute paths at the time when the record was written, by key."""
    shape: tuple[Side, Side, Side]
    """(C, H, W) of a state."""
    classes: tuple[str, ...]
    decoder: DecoderRecord
    training: tuple[ClassRecord, ...]
    """One for each class; one for all images, if there are no classes; none, if the data are absent."""
    heldout: tuple[ClassRecord, ...]

    @model_validator(mode="after")
    def _fits(self) -> Self:
        """Refuse fields that contradict one another: the file may come from anywhere."""
        for part in (self.training, self.heldout):
            if len(part) not in (0, max(1, len(self.classes))):
                raise ValueError(f"there are {len(self.classes)} classes, and images of {len(part)}")
        if {len(self.decoder.mean), len(self.decoder.std)} not in ({0}, {self.shape[0]}):
            raise ValueError("the decoder should have a mean and a std for each channel, or none")
        return self

    @classmethod
    def of(cls, data: Component, split: Split) -> "DataRecord":
        """Return the record of data: the component of the recipe, and what it has loaded."""
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
        """Return the data without their images, for sampling; None if a custom function of the data decodes states."""
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
        """Return the record in a file.

        Raises:
            ValueError: the content is not valid; the message is one line.
        """
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise ValueError(f"{where}: {first['msg']}" if where else first["msg"]) from None

    def differences(self, split: Split, *, heldout: bool = False) -> list[str]:
        """Return a text for each way in which data differ from the record; images are the training or held-out ones."""
        found = []
        if self.training and tuple(split.training.shape) != self.shape:
            found.append(f"states had the shape {_shape(self.shape)} and have {_shape(split.training.shape)}")
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
        """Return the record with the counts of data without their unreadable images, where classes have fewer."""
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
        """Return the record with the present paths of the data."""
        now = absolute_paths(with_existing_paths(data, self.places), DecoderRecord.of(split.decode).vae)
        return self.model_copy(update={"places": self.places | now})


WITHOUT_IMAGES = "this needs the images that the run was trained on, but the data were loaded without images"


def open_data(data: Component, record: DataRecord | None) -> Split:
    """Load the data of a recipe. A relative path that does not exist is replaced by the recorded one.

    Raises:
        UserError: they cannot be loaded, or the component returns something else than a `Split`.
    """
    recorded = {} if record is None else record.places
    try:
        split = with_existing_paths(data, recorded).build()
    except UserError as problem:
        raise UserError(f"{problem}{moved_hint(data)}" if record is not None else str(problem)) from None
    if not isinstance(split, Split):
        raise UserError(f"data = {data.kind} returns a {type(split).__name__}, not a Split")
    if ":" in data.kind:
        split = check_labels(split, f"data = {data.kind}")
    decoder = split.decode.decoder if isinstance(split.decode, NormalizedDecoder) else split.decode
    if record is not None and isinstance(decoder, Decoder):
        decoder.source = existing_path(decoder.source, recorded.get("vae"))
    return split


def _by_class(images: Images, classes: int) -> tuple[ClassRecord, ...]:
    """Return the record of each class, or of all images if there are no classes; none for absent images."""
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
    """Return a text for each way in which the images of classes differ."""
    gone, new = [name for name in was if name not in now], [name for name in now if name not in was]
    found = []
    for name in list(gone):
        same = [other for other in new if now[other] == was[name] and was[name].fingerprint and was[name].count]
        if same:
            found.append(f"class {name!r} is now named {same[0]!r}")
            gone.remove(name)
            new.remove(same[0])
    found += [f"class {name!r} is missing" for name in gone] + [f"class {name!r} is new" for name in new]
    both = [name for name in was if name in now]
    counts = [
        f"{_class_prefix(name)}{was[name].count:,} images before, {now[name].count:,} now"
        for name in both
        if was[name].count != now[name].count
    ]
    found += counts
    if not found and [*was] != [*now]:
        found.append("the classes are in another order")
    if not found:
        known = [name for name in both if was[name].fingerprint and now[name].fingerprint]
        found += [f"{_class_prefix(name)}the images have changed" for name in known if was[name] != now[name]]
    return found


def _class_prefix(name: str) -> str:
    return f"class {name!r}: " if name else ""


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) < 60 else f"{text[:50]}..."


def join_differences(differences: list[str]) -> str:
    """Return differences as one line, the first `MAX_REPORTED` of them."""
    more = f" and {len(differences) - MAX_REPORTED} more" if len(differences) > MAX_REPORTED else ""
    return "; ".join(differences[:MAX_REPORTED]) + more
