"""Pictures and pages: grids, strips, animations, scatter plots and the HTML report of a run."""
