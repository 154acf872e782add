"""SIGTERM and SIGINT: save, say how to go on, and leave with the status that schedulers expect."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from diffusion_lab.training.callbacks.checkpoints import Checkpoints
from diffusion_lab.training.trainer_state import between_steps

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interrupted(SystemExit):
    """A run was stopped from outside and saved; exit status 128 + signal (143 or 130)."""

    def __init__(self, number: int, step: int) -> None:
        super().__init__(128 + number)
        self.signal = signal.Signals(number).name
        self.step = step

    def __str__(self) -> str:
        return f"interrupted by {self.signal} at step {self.step}"


class Interruption(Callback):
    """At the first signal: finish the step, save last.ckpt, leave. At the second: leave at once.

    During validation and drawing the signal waits for their end.
    """

    def __init__(self) -> None:
        self._received: int | None = None
        self._before: dict[signal.Signals, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take over the signals."""
        self._received = None
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._notice) for number in SIGNALS}

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Leave between two steps; an epoch's last step is left after its validation."""
        if between_steps(trainer, batch_idx) and self._wanted(trainer):
            self._leave(trainer)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave between two epochs, the last one's checkpoint being written."""
        if trainer.global_step and self._wanted(trainer):
            self._leave(trainer, save=False)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Give the signals back."""
        self._release()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Give the signals back."""
        self._release()

    def _notice(self, number: int, frame: FrameType | None) -> None:
        if self._received is not None:
            self._release()
            raise KeyboardInterrupt
        self._received = number
        print(f"\n{signal.Signals(number).name}: saving after this step ...", flush=True)

    def _wanted(self, trainer: pl.Trainer) -> bool:
        wanted = self._received is not None
        if trainer.world_size > 1:
            wanted = trainer.strategy.reduce_boolean_decision(wanted, all=False)
        return wanted

    def _leave(self, trainer: pl.Trainer, save: bool = True) -> None:
        number = self._received or signal.SIGTERM
        keeper = next((c for c in trainer.callbacks if isinstance(c, Checkpoints)), None)  # type: ignore[attr-defined]
        if keeper is not None:
            if save:
                keeper.save(trainer)
            if trainer.is_global_zero:
                print(
                    f"Stopped by {signal.Signals(number).name} at step {trainer.global_step}, "
                    f"saved. Go on with:\n  python -m diffusion_lab.train "
                    f"resume={keeper.folder.parent}",
                    flush=True,
                )
        raise Interrupted(number, trainer.global_step)

    def _release(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
