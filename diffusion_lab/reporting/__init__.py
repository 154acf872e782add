"""The HTML page of a run or a sweep: its charts, tables, images and templates."""
