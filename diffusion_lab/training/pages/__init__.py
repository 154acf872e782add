"""Pages that a run leaves behind: pictures (and links) made once, when training has ended.

A page is any object with `write(model, folder) -> Path`. It may have `check(model)`, which
refuses a bad request before training starts; `suits(model)`, which says whether there is anything
to show; `caption`, a few words for the report; and `shown`, the picture that loggers are given.
"""

from diffusion_lab.training.pages.alias import AliasPage
from diffusion_lab.training.pages.architecture import ArchitecturePage
from diffusion_lab.training.pages.denoising import DenoisingPage
from diffusion_lab.training.pages.drawn import GridPage, StepsPage, StripPage
from diffusion_lab.training.pages.page import Page
from diffusion_lab.training.pages.progress_page import ProgressPage

__all__ = [
    "AliasPage",
    "ArchitecturePage",
    "DenoisingPage",
    "GridPage",
    "Page",
    "ProgressPage",
    "StepsPage",
    "StripPage",
]
