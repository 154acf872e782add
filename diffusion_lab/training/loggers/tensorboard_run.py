"""TensorBoard, live and without an account."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL.Image import Image

from diffusion_lab.ranges import NonNegative, checked
from diffusion_lab.training.loggers.guarded import GuardedLogger

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class TensorBoardRun(GuardedLogger):
    """TensorBoard: `tensorboard --logdir RUN_DIR/tensorboard` shows it live.

    Scalars and pictures as Weights & Biases has them; the configuration and tables as text, a
    picture in a table by its number alone.

    Args:
        run_dir: The run's folder; the files go to its folder `tensorboard`.
        patience: Seconds that the end of a run waits for it at most.

    Raises:
        ArgumentError: patience below 0.
    """

    @checked
    def __init__(self, run_dir: str | Path, patience: NonNegative = 30.0) -> None:
        super().__init__(patience)
        self.run_dir = Path(run_dir)

    def open(self, config: dict[str, Any]) -> TensorBoardSink:
        """Open the event file."""
        from torch.utils.tensorboard import SummaryWriter

        from diffusion_lab.training.loggers.facts import facts_of_run

        sink = TensorBoardSink(SummaryWriter(str(self.run_dir / "tensorboard")))
        sink.text("config", _lines(config))
        sink.text("run", _lines(facts_of_run(self.run_dir)))
        return sink


class TensorBoardSink:
    """One event file.

    Args:
        writer: Writes it.
    """

    @checked
    def __init__(self, writer: SummaryWriter) -> None:
        self.writer = writer

    def values(self, values: dict[str, float], step: int) -> None:
        """A scalar each."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def picture(self, key: str, picture: Image, step: int) -> None:
        """An image."""
        import numpy as np

        pixels = np.asarray(picture.convert("RGB"))
        self.writer.add_image(key, pixels, step, dataformats="HWC")

    def table(self, key: str, columns: list[str], rows: list[list[Any]], step: int) -> None:
        """A Markdown table."""
        lines = [columns, ["---"] * len(columns)]
        for number, row in enumerate(rows):
            lines.append([str(number) if isinstance(cell, Image) else _cell(cell) for cell in row])
        self.writer.add_text(key, "\n".join(f"| {' | '.join(line)} |" for line in lines), step)

    def text(self, key: str, lines: str) -> None:
        """A text of the whole run, as it is."""
        self.writer.add_text(key, "\n".join(f"    {line}" for line in lines.splitlines()), 0)

    def flush(self) -> None:
        """Write what is buffered."""
        self.writer.flush()

    def close(self, status: str) -> None:
        """Close the file."""
        self.writer.close()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _lines(tree: dict[str, Any], prefix: str = "") -> str:
    """`a.b: value`, a line a leaf."""
    lines = []
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            lines.append(_lines(value, f"{prefix}{key}."))
        else:
            lines.append(f"{prefix}{key}: {value}")
    return "\n".join(lines)
