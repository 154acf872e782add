"""What a person asks `sample` to draw: checked before there is a model, made ready once there is.

A request is checked in the checker's stage, where what is wrong with it stands beside every other
error; `expand_labels` is asked once, there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from diffusion_lab.diffusion.conditions import Condition
from diffusion_lab.diffusion.objectives import Batch
from diffusion_lab.generate.image_inputs import typed_images, typed_start
from diffusion_lab.generate.initial_state import InitialState
from diffusion_lab.generate.labels import expand_labels, repeated, typed_label
from diffusion_lab.generate.trained_model import Generates


class SampleOptions(NamedTuple):
    """The options of `sample` that say what is drawn, plain values as they were typed.

    Attributes:
        num_samples: How many; None for as many as the picture usually has.
        label: See `typed_label`.
        vector: See `typed_vector`, or None.
        condition_image: Picture files or `test:NUMBER`, or None.
        image: The same, to start from.
        start: Time to which they are noised, or None.
        known: See `image_inputs.known_mask`, or None.
        interpolate: Pictures on each way, 0 for no way.
        strip: Moments of each trajectory, 0 for finished samples.
        seed: Of the noise.
    """

    num_samples: int | None
    label: Any
    vector: Any
    condition_image: Any
    image: Any
    start: float | None
    known: str | None
    interpolate: int
    strip: int
    seed: int

    @property
    def number(self) -> int:
        """Samples that are drawn."""
        if self.interpolate and self.image is not None:
            return int(self.interpolate)
        if self.num_samples is not None:
            return int(self.num_samples)
        return 10 if self.strip else 100

    def checked(
        self, data: Mapping[str, Any], denoiser: Mapping[str, Any]
    ) -> tuple[Tensor | None, list[str]]:
        """The class of each sample, and everything wrong with the request.

        Args:
            data: The data's node in the stored configuration of the training.
            denoiser: The network's.
        """
        labels, found = self._labels(data.get("num_classes"))
        if self._counts_are_sound():
            found += self._errors_of_start(data.get("shape"))
        return labels, found + self._errors_of_conditions(denoiser)

    def ready(
        self,
        model: Generates,
        labels: Tensor | None,
        denoiser: Mapping[str, Any],
        data: Callable[[], Any],
    ) -> tuple[Condition, InitialState | None]:
        """The conditions of the samples, and where they start; None for noise.

        Args:
            model: What will draw them.
            labels: As `checked` gave them.
            denoiser: See there.
            data: Makes the data module, if one of its test images is asked for.

        Raises:
            ValueError: An image that cannot be had, or of another size.
        """
        vector = None if self.vector is None else typed_vector(self.vector)
        image = None
        if self.condition_image is not None:
            takes = taken(denoiser)
            shape = (takes[1] if takes else model.shape[0], *model.shape[1:])
            names = _listed(self.condition_image)
            image = typed_images(names, shape, data, "condition_image", held_out_condition)
        given = repeated(Condition(vector=vector, image=image), self.number)
        given = given._replace(label=labels)
        if self.image is None and not self.interpolate:
            return given, None
        images = None
        if self.image is not None:
            images = typed_images(_listed(self.image), model.shape, data)
        start = typed_start(
            model, self.number, given, self.seed,
            images=images, time=self.start, known=self.known, interpolate=self.interpolate,
        )  # fmt: skip
        return given, start

    def _counts_are_sound(self) -> bool:
        """Whether counts are counts; where not, the checker tells."""
        return type(self.interpolate) is int and isinstance(self.num_samples, int | None)

    def _labels(self, classes: int | None) -> tuple[Tensor | None, list[str]]:
        """The class of each sample, or what is wrong with the label."""
        sound = self._counts_are_sound()
        count = max(1, self.number) if sound else 1
        try:
            label = typed_label(self.label, classes)
            if sound and self.interpolate and label == "all":
                if self.image is not None:  # images bring theirs along
                    return None, []
                rows = torch.arange(count) // self.interpolate % (classes or 1)  # one class a way
                return expand_labels(rows, count, classes), []
            return expand_labels(label, count, classes), []
        except (ValueError, TypeError, RuntimeError) as error:
            text = str(error)
            return None, [text if text.startswith("label=") else f"label={self.label}: {text}"]

    def _errors_of_start(self, shape: Sequence[int] | None) -> list[str]:
        """What is wrong with the images to start from."""
        found = []
        images = 0 if self.image is None else len(_listed(self.image))
        if self.image is not None and not images:
            return ["image=[] names no image: give at least one, or leave it out"]
        for name, value in (("start", self.start), ("known", self.known)):
            if value is not None and not images:
                found.append(f"{name}={value} needs an image: image=FILE or image=test:7")
            if value is not None and self.interpolate:
                found.append(
                    f"{name}={value} and interpolate={self.interpolate} exclude each other"
                )
        if images and not self.interpolate and self.start is None and self.known is None:
            found.append(
                f"image={self.image}: say what is to be done with it: start=0.6 (go on from it), "
                "known=left (paint the rest), or interpolate=8 with two images"
            )
        if self.interpolate and (self.interpolate < 2 or images not in (0, 2)):
            found.append(
                f"interpolate={self.interpolate} must be 0 or at least 2, without image or with two"
            )
        if self.interpolate > 1 and not images and self.number % self.interpolate:
            found.append(
                f"num_samples={self.number} must be a multiple of interpolate={self.interpolate}"
            )
        if (images or self.interpolate) and self.strip:
            found.append(
                f"strip={self.strip} shows ways from noise: leave image and interpolate out"
            )
        if images and shape and len(shape) != 3:
            found.append(f"image={self.image}: this model's samples are points; leave it out")
        return found

    def _errors_of_conditions(self, denoiser: Mapping[str, Any]) -> list[str]:
        """What is wrong with the conditions beside the class."""
        takes = taken(denoiser)
        conditions = {"vector": self.vector, "condition_image": self.condition_image}
        found = [
            f"{key}={value}: this model was trained without one; leave it out"
            for (key, value), part in zip(conditions.items(), takes or (True, True), strict=True)
            if value is not None and not part
        ]
        if self.condition_image is not None and not _listed(self.condition_image):
            found.append("condition_image=[] names no image: give at least one, or leave it out")
        if self.vector is not None and not found:
            try:
                typed_vector(self.vector, takes[0] if takes else None)
            except ValueError as error:
                found.append(str(error))
        return found


def _listed(typed: Any) -> list[str]:
    """One name or a list of them, as typed."""
    return [str(name) for name in (typed if isinstance(typed, list) else [typed])]


def taken(denoiser: Mapping[str, Any]) -> tuple[int | None, int] | None:
    """Numbers of a condition vector and channels of a condition image that a network takes.

    Args:
        denoiser: The network's node in a stored configuration.

    Returns:
        (D or None, channels or 0); None where the node does not tell, as of another library.
    """
    conditions = denoiser.get("conditions")
    if conditions is None:
        ours = str(denoiser.get("_target_")).startswith("diffusion_lab.")
        return (None, 0) if ours else None
    return conditions.get("vector_dim"), int(conditions.get("image_channels") or 0)


def typed_vector(typed: Any, size: int | None = None) -> Tensor:
    """A vector as it was typed, or a list of them, float32 (number of vectors, D).

    Args:
        typed: A number, a list of numbers, or a list of such lists.
        size: D, where it is known.

    Raises:
        ValueError: Something that is no number, or another D.
    """
    rows = typed if isinstance(typed, list) else [typed]
    rows = rows if rows and all(isinstance(row, list) for row in rows) else [rows]
    for number in (number for row in rows for number in row):
        is_number = isinstance(number, int | float) and not isinstance(number, bool)
        if not is_number or not math.isfinite(number):
            raise ValueError(f"vector={typed}: {number} is not a number")
    sizes = {len(row) for row in rows}
    wanted = {size} if size is not None else sizes
    if sizes != wanted or len(sizes) > 1 or 0 in sizes:
        numbers = "numbers, the same count in each" if size is None else f"{size} numbers"
        raise ValueError(f"vector={typed} must be a list of {numbers}, or a list of such lists")
    return torch.tensor(rows, dtype=torch.float32)


def held_out_condition(data: Any, number: int) -> Tensor:
    """Condition image `number` of a data module's test set, float32 (C, *).

    Raises:
        ValueError: There are fewer, or none.
    """
    data.prepare_data()
    data.setup("test")
    seen = 0
    for loaded in data.test_dataloader():
        image = _image_of(data.on_after_batch_transfer(loaded, 0))
        if image is None:
            raise ValueError(f"condition_image=test:{number}: the batches of this data have none")
        if number < seen + len(image):
            return image[number - seen].float()
        seen += len(image)
    raise ValueError(f"condition_image=test:{number}: the test set has images 0 .. {seen - 1}")


def _image_of(batch: Batch | Mapping[str, Tensor] | Sequence[Tensor]) -> Tensor | None:
    """The condition images of what a loader gave, or None."""
    if isinstance(batch, Batch):
        return batch.given.image
    return batch.get("image") if isinstance(batch, Mapping) else None
