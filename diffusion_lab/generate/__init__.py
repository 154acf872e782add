"""Generating from a trained model: what is asked for, where it starts, on how many devices.

`model` is what everything else asks: `TrainedModel`, and `Generates`, which a model in training
shares with it. `generation` draws in batches by image number, `labels` reads what a user writes
for a class, `initial_state` and `image_inputs` are what sampling starts from, `multi_device` shares
the work. Needs neither Lightning nor Hydra.
"""
