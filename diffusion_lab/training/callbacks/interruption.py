"""SIGTERM and SIGINT: save, say how to resume, and exit with the status that schedulers expect."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from diffusion_lab.training.callbacks.checkpoints import Checkpoints
from diffusion_lab.training.trainer_state import between_steps, callback_of

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

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Install the signal handlers."""
        self._received = None
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._on_signal) for number in SIGNALS}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Leave between two steps; an epoch's last step is left after its validation."""
        if between_steps(trainer, batch_idx) and self._stop_requested(trainer):
            self._leave(trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave between two epochs, the last one's checkpoint being written."""
        if trainer.global_step and self._stop_requested(trainer):
            self._leave(trainer, save=False)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._received is not None:
            self._release()
            raise KeyboardInterrupt
        self._received = number
        print(f"\n{signal.Signals(number).name}: saving after this step ...", flush=True)

    def _stop_requested(self, trainer: Trainer) -> bool:
        """Whether any process received a signal."""
        requested = self._received is not None
        if trainer.world_size > 1:
            requested = trainer.strategy.reduce_boolean_decision(requested, all=False)
        return requested

    def _leave(self, trainer: Trainer, save: bool = True) -> None:
        number = self._received or signal.SIGTERM
        checkpoints = callback_of(trainer, Checkpoints)
        if checkpoints is not None:
            if save:
                checkpoints.save(trainer)
            if trainer.is_global_zero:
                print(
                    f"Stopped by {signal.Signals(number).name} at step {trainer.global_step}, "
                    f"saved. Go on with:\n  python -m diffusion_lab.train "
                    f"resume={checkpoints.folder.parent}",
                    flush=True,
                )
        raise Interrupted(number, trainer.global_step)

    def _release(self, *args: Any) -> None:
        """Restore the handlers of before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    on_train_end = on_exception = _release  # type: ignore[assignment]
