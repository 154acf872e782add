r"""The mathematics of diffusion: one notion a file, and nothing but torch.

Time runs from t = 0 (data) to t = 1 (noise) and everything is

    x_t = alpha(t) x0 + sigma(t) eps,    eps ~ N(0, I).

Read in this order: `gaussian` (the algebra of levels), `parameterizations` (what a network
predicts), `conditions` (what a model is asked), `model` (network -> x0-hat), one class of
`schedules`, then `sampling.sampler`. Training is `objectives`, made of `terms`, `times`, `weights`,
`couplings` and, for a learned variance, `bound`.

How the symbols are called elsewhere:

| here             | DDPM / DDIM papers          | EDM                | flow matching (SD3)   |
|------------------|-----------------------------|--------------------|-----------------------|
| t in [0, 1]      | t / T, t in 1..T            | (via sigma)        | t (1 is noise)        |
| alpha            | sqrt(alpha_bar)             | s(t) = 1           | 1 - t                 |
| sigma            | sqrt(1 - alpha_bar)         | sigma(t)           | t                     |
| log_snr          | log(abar / (1 - abar))      | -2 ln sigma        | 2 ln((1 - t) / t)     |
| x0               | x_0                         | y (the image)      | x_0 (x_1 in torchcfm) |
| eps              | epsilon                     | n / sigma          | epsilon, x_1          |
| x0-hat           | predicted x_0               | D(x; sigma)        | x_t - t v             |
| s < t            | the previous step t - 1     | t_{i+1}            | the next, less noisy  |
"""
