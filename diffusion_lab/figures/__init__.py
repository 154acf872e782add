"""Every picture: grids, strips, animations, plots, diagrams, as functions of what they show.

`grids`, `scatter` and `samples` draw tensors; `pictures` renders and saves. The figures that a run
leaves behind (`run_figures`) ask a trained model for what they show.
"""
