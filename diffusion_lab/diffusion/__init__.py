r"""The mathematics of diffusion: one notion a file, and nothing but torch.

Time runs from t = 0 (data) to t = 1 (noise) and everything is

    x_t = alpha(t) x0 + sigma(t) eps,    eps ~ N(0, I).

Read in this order: `gaussian` (the algebra of levels), `parameterizations` (what a network
predicts), `schedules.schedule` and one class beside it, `model` (network -> x0-hat), then
`sampling.sampler` (the loop) and `DDIM` in `sampling.ancestral`: about 500 lines. What a model is
asked is in `conditions`, how it calls its network in `network_call`, what is drawn from it in
`sampling.pipeline`. Training is `objectives`, made of `terms`, `times`, `weights`, `couplings` and,
for a learned variance, `bound`.

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
| F                | epsilon_theta, v_theta      | F(x; sigma)        | v_theta               |
| c_noise          | t                           | ln(sigma) / 4      | 1000 t                |

Words: a *level* is (t, alpha, sigma); a *parameterization* says what F means; a *denoiser* is what
a sampler calls, or the network in it; *given* are the conditions of a batch, *null* the condition
of no class; the *estimate* of self-conditioning is the last x0-hat; a *timestep distribution* says
which times are trained, a *timestep spacing* (`grid` in yaml) which are visited in sampling.
"""
