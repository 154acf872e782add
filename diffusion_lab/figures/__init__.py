"""Every picture: grids, strips, films, plots and diagrams, as functions of what they show.

Figures that a run leaves behind are made once, when training has ended; see `page`.
"""
