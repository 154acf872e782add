"""TensorBoard, live and without an account."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger
from PIL.Image import Image

from diffusion_lab.ranges import NonNegative, checked
from diffusion_lab.training.loggers.background import BackgroundLogger, Cell, facts_of_run


class TensorBoardRun(BackgroundLogger, TensorBoardLogger):
    """TensorBoard: `tensorboard --logdir RUN_DIR/tensorboard` shows it live.

    Scalars and pictures as Weights & Biases has them; the configuration and tables as text, a
    picture in a table by its number alone.
    """

    @checked
    def __init__(self, run_dir: str | Path, patience: NonNegative = 30.0) -> None:
        super().__init__(run_dir, name="tensorboard", version="")
        self.run_dir = Path(run_dir)
        self.patience = patience

    def open(self, config: dict[str, Any]) -> Any:
        """Open the event file; configuration and facts are texts of the whole run."""
        from torch.utils.tensorboard import SummaryWriter

        writer = SummaryWriter(self.log_dir)
        for key, tree in (("config", config), ("run", facts_of_run(self.run_dir))):
            writer.add_text(key, "\n".join(f"    {line}" for line in _lines(tree)), 0)
        return writer

    def write_picture(self, key: str, picture: Image, step: int) -> None:
        """An image."""
        import numpy as np

        pixels = np.asarray(picture.convert("RGB"))
        self.experiment.add_image(key, pixels, step, dataformats="HWC")

    def write_table(self, key: str, columns: list[str], rows: list[list[Cell]], step: int) -> None:
        """A Markdown table."""
        lines = [columns, ["---"] * len(columns)]
        lines += [[_cell_text(cell, number) for cell in row] for number, row in enumerate(rows)]
        text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        self.experiment.add_text(key, text, step)

    def flush(self) -> None:
        """Write what is buffered."""
        self.experiment.flush()

    def close(self, status: str) -> None:
        """Close the file."""
        self.experiment.close()


def _cell_text(cell: Cell, number: int) -> str:
    """A cell of row `number`."""
    if cell is None:
        return ""
    if isinstance(cell, Image):
        return str(number)
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)


def _lines(tree: dict[str, Any], prefix: str = "") -> list[str]:
    """`a.b: value`, a line a leaf."""
    lines = []
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            lines += _lines(value, f"{prefix}{key}.")
        else:
            lines.append(f"{prefix}{key}: {value}")
    return lines
