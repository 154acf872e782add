"""Agreement with diffusers, whose float32 tables and casts are raised to float64."""

from importlib import import_module

import pytest
import torch
from exact import Drawn, answering, ask, run
from libraries import (
    DATA,
    amended,
    in_float64,
    largest,
    relative,
    start,
    then_zero,
    version,
)

from diffusion_lab.diffusion.gaussian import eps_from, levels, marginal
from diffusion_lab.diffusion.model import Denoised, GaussianDiffusion
from diffusion_lab.diffusion.parameterizations import EDM, V, Velocity
from diffusion_lab.diffusion.schedules import (
    ContinuousVP,
    CosineBetas,
    LinearBetas,
    QuadraticBetas,
    RectifiedFlow,
    VarianceExploding,
    ZeroTerminalSNR,
)
from diffusion_lab.sampling.ancestral import DDIM, DDPM, DDIMInversion
from diffusion_lab.sampling.constraints import Clip, DynamicThreshold
from diffusion_lab.sampling.guidance.classifier_free import ClassifierFree, Projected, Rescaled
from diffusion_lab.sampling.multistep import DPMSolver2S, DPMSolverMultistep, UniPC
from diffusion_lab.sampling.ode import VE, Heun
from diffusion_lab.sampling.spacing import Karras, Leading, Linspace, Trailing

diffusers = pytest.importorskip("diffusers")
DIFF = version("diffusers")


def module(name):
    return import_module(f"diffusers.schedulers.scheduling_{name}")


def force(scheduler, schedule):
    """Give a diffusers scheduler our float64 tables."""
    abar = schedule.alpha_bar
    previous = torch.cat((torch.ones(1, dtype=torch.float64), abar[:-1]))
    scheduler.alphas_cumprod = abar
    scheduler.alphas = abar / previous
    scheduler.betas = 1 - scheduler.alphas
    scheduler.one = torch.ones((), dtype=torch.float64)
    for name in ("final_alpha_cumprod", "initial_alpha_cumprod"):
        if hasattr(scheduler, name):
            setattr(scheduler, name, torch.ones((), dtype=torch.float64))
    return scheduler


def loop(scheduler, schedule, steps, x, generator, extra=None, **step):
    """Their loop, with the exact noise prediction at each of their 0-based timesteps."""
    scheduler.set_timesteps(steps)
    for k in scheduler.timesteps.tolist():
        level = schedule((k + 1) / schedule.steps)
        eps = eps_from(x, ask(DATA, x, level).x0, level)
        output = eps if extra is None else torch.cat((eps, extra(x)), dim=1)
        x = scheduler.step(output, k, x, generator=generator, **step).prev_sample
    return x


@pytest.mark.parametrize(
    ("name", "schedule", "settings"),
    [
        (
            "Linear schedule",
            LinearBetas(1000),
            {"beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"},
        ),
        (
            "Linear schedule",
            LinearBetas(300),
            {"beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"},
        ),
        (
            "Quadratic schedule",
            QuadraticBetas(300, 8.5e-4, 0.012),
            {"beta_start": 8.5e-4, "beta_end": 0.012, "beta_schedule": "scaled_linear"},
        ),
        ("Cosine schedule", CosineBetas(1000), {"beta_schedule": "squaredcos_cap_v2"}),
    ],
)
def test_tables(compare, name, schedule, settings):
    theirs = diffusers.DDPMScheduler(schedule.steps, **settings)
    label = f"`{settings['beta_schedule']}`, T {schedule.steps}; alpha-bar"
    compare(name, DIFF, label, largest(schedule.alpha_bar, theirs.alphas_cumprod), 1e-6)
    with in_float64(module("ddpm")):
        exact = diffusers.DDPMScheduler(schedule.steps, **settings)
    difference = largest(schedule.alpha_bar, exact.alphas_cumprod)
    compare(name, DIFF, f"{label}, in float64", difference, 1e-10)
    x0, eps = start(5), start(5, seed=2)
    k = torch.tensor([0, 10, 99, 200, schedule.steps - 1])
    level = schedule((k + 1).double() / schedule.steps)
    force(theirs, schedule)
    difference = largest(marginal(x0, eps, level), theirs.add_noise(x0, eps, k))
    compare("q(x_t given x0)", DIFF, "`add_noise`, all schedules above", difference, 1e-10)
    v = GaussianDiffusion(torch.nn.Identity(), schedule, V()).target(x0, eps, level)
    difference = largest(v, theirs.get_velocity(x0, eps, k))
    compare("v target", DIFF, "`get_velocity`, all schedules above", difference, 1e-10)


def test_zero_terminal_snr(compare):
    ours = ZeroTerminalSNR(1000, LinearBetas).alpha_bar
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    theirs = torch.cumprod(1 - module("ddim").rescale_zero_terminal_snr(betas), 0)
    settings = "`rescale_zero_terminal_snr`, linear, T 1000; alpha-bar"
    compare("Zero-terminal SNR", DIFF, settings, largest(ours, theirs), 1e-10)
    native = diffusers.DDIMScheduler(1000, rescale_betas_zero_snr=True).alphas_cumprod
    settings = "`DDIMScheduler(rescale_betas_zero_snr=True)`, linear, T 1000; alpha-bar"
    compare("Zero-terminal SNR", DIFF, settings, largest(ours, native), 1e-6)


@answering
def clipped(x, level):
    return Denoised(Clip()(ask(DATA, x, level).x0, level))


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize(("name", "fraction"), [("fixed_small", 0.0), ("fixed_large", 1.0)])
@pytest.mark.parametrize("total", [50, 1000])
def test_ddpm(compare, name, fraction, clip, total):
    schedule = LinearBetas(total)
    scheduler = diffusers.DDPMScheduler(total, variance_type=name, clip_sample=clip)
    theirs = loop(
        force(scheduler, schedule), schedule, total, start(), torch.Generator().manual_seed(3)
    )
    denoise = clipped if clip else DATA
    ours = run(DDPM(variance_fraction=fraction), denoise, schedule, start(), Drawn(3)).x
    settings = f"`{name}`, {'clipped' if clip else 'not clipped'}, T 50 and 1000, all steps"
    compare("DDPM", DIFF, settings, largest(ours, theirs), 1e-10)


def test_ddpm_native(compare):
    schedule = LinearBetas(1000)
    scheduler = diffusers.DDPMScheduler(1000, clip_sample=False)
    theirs = loop(scheduler, schedule, 1000, start(), torch.Generator().manual_seed(3))
    ours = run(DDPM(), DATA, schedule, start(), Drawn(3)).x
    settings = "`fixed_small`, not clipped, T 1000, its float32 tables as they are"
    compare("DDPM", DIFF, settings, largest(ours, theirs), 1e-3)


def test_ddpm_strided(compare):
    schedule = LinearBetas(1000)
    scheduler = diffusers.DDPMScheduler(1000, clip_sample=False, timestep_spacing="leading")
    theirs = loop(
        force(scheduler, schedule), schedule, 50, start(), torch.Generator().manual_seed(3)
    )
    ours = run(DDPM(50, Leading()), DATA, schedule, start(), Drawn(3)).x
    settings = "`fixed_small`, not clipped, 50 of 1000 steps, leading"
    compare("DDPM", DIFF, settings, largest(ours, theirs), 1e-10)


def test_ddpm_learned_range(compare):
    schedule = LinearBetas(200)
    scheduler = diffusers.DDPMScheduler(200, variance_type="learned_range", clip_sample=False)
    theirs = loop(
        force(scheduler, schedule),
        schedule,
        200,
        start(),
        torch.Generator().manual_seed(3),
        extra=torch.sin,
    )

    @answering
    def denoise(x, level):
        return ask(DATA, x, level)._replace(variance_fraction=(torch.sin(x) + 1) / 2)

    ours = run(DDPM(variance_fraction=None), denoise, schedule, start(), Drawn(3)).x
    settings = "`learned_range`, T 200, all steps; v = sin(x_t)"
    compare("DDPM, learned variance", DIFF, settings, largest(ours, theirs), 1e-10)


@pytest.mark.parametrize("eta", [0.0, 0.7, 1.0])
@pytest.mark.parametrize(
    ("grid", "spacing", "total", "steps"),
    [
        (Leading(), "leading", 1000, 50),
        (Leading(), "leading", 1000, 7),
        (Leading(), "leading", 300, 20),
        (Trailing(), "trailing", 1000, 50),
        (Trailing(), "trailing", 300, 20),
    ],
)
def test_ddim(compare, grid, spacing, total, steps, eta):
    schedule = LinearBetas(total)
    scheduler = diffusers.DDIMScheduler(total, clip_sample=False, timestep_spacing=spacing)
    theirs = loop(
        force(scheduler, schedule),
        schedule,
        steps,
        start(),
        torch.Generator().manual_seed(3),
        eta=eta,
    )
    ours = run(DDIM(steps, grid, eta=eta), DATA, schedule, start(), Drawn(3)).x
    of = "50 and 7 of 1000, 20 of 300" if spacing == "leading" else "50 of 1000, 20 of 300"
    settings = f"{spacing}, {of} steps, eta {eta:g}"
    compare("DDIM", DIFF, settings, largest(ours, theirs), 1e-10)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_ddim_clipped(compare, eta):
    schedule = LinearBetas(1000)
    scheduler = diffusers.DDIMScheduler(1000, clip_sample=True, timestep_spacing="trailing")
    theirs = loop(
        force(scheduler, schedule),
        schedule,
        50,
        start(),
        torch.Generator().manual_seed(3),
        eta=eta,
        use_clipped_model_output=True,
    )
    ours = run(DDIM(50, Trailing(), eta=eta), clipped, schedule, start(), Drawn(3)).x
    settings = "trailing, 50 of 1000 steps, clipped with `use_clipped_model_output`, eta 0 and 1"
    compare("DDIM", DIFF, settings, largest(ours, theirs), 1e-10)


def test_ddim_v_prediction(compare):
    """On a schedule that ends at alpha = 0, where v is needed."""
    schedule = ZeroTerminalSNR(1000, LinearBetas)
    scheduler = diffusers.DDIMScheduler(
        1000, clip_sample=False, timestep_spacing="trailing", prediction_type="v_prediction"
    )
    force(scheduler, schedule).set_timesteps(20)
    model = GaussianDiffusion(torch.nn.Tanh(), schedule, V())
    model.denoiser.forward = lambda x, *_: torch.tanh(1.3 * x)
    x = start()
    for k in scheduler.timesteps.tolist():
        x = scheduler.step(torch.tanh(1.3 * x), k, x).prev_sample
    ours = run(DDIM(20, Trailing()), model, schedule, start()).x
    settings = "trailing, 20 of 1000 steps, `v_prediction`, zero-terminal SNR"
    compare("DDIM", DIFF, settings, largest(ours, x), 1e-10)


def test_ddim_inversion(compare):
    """Their first step starts at alpha = 1, where ours supposes the cleanest level: left out."""
    schedule = LinearBetas(1000)
    scheduler = diffusers.DDIMInverseScheduler(
        1000, clip_sample=False, timestep_spacing="leading", set_alpha_to_one=True
    )
    force(scheduler, schedule).set_timesteps(50)
    x = 0.5 * start()
    ours = run(DDIMInversion(50, Leading()), DATA, schedule, x).x
    for k in scheduler.timesteps.tolist()[1:]:  # named after the level a step ends at
        level = schedule((k + 1 - 20) / 1000)
        x = scheduler.step(eps_from(x, ask(DATA, x, level).x0, level), k, x).prev_sample
    settings = "`DDIMInverseScheduler`, leading, 50 of 1000 steps, from its second step on"
    compare("DDIM inversion", DIFF, settings, largest(ours, x), 1e-10)


@pytest.mark.parametrize(
    ("spacing", "grid"),
    [("leading", Leading()), ("trailing", Trailing()), ("linspace", Linspace())],
)
@pytest.mark.parametrize("steps", [1, 10, 13, 20, 50, 100, 1000])
def test_grids(compare, spacing, grid, steps):
    theirs = diffusers.DDIMScheduler(1000, timestep_spacing=spacing)
    theirs.set_timesteps(steps)
    ours = (grid(LinearBetas(1000), steps)[:-1] * 1000).round().long() - 1
    if spacing == "linspace" and steps == 1:  # theirs takes the cleanest, ours the noisiest
        assert ours.tolist() == [999]
        return
    assert len(ours) == len(theirs.timesteps)
    settings = f"`timestep_spacing='{spacing}'`, 1 to 1000 of 1000 steps"
    compare("Timesteps", DIFF, settings, largest(ours, theirs.timesteps), 0.0)


def solve(scheduler, schedule, steps, x, stop=None, **step):
    """Their loop in sigma space at the exact sigmas of their timesteps, and those times."""
    scheduler.set_timesteps(steps)
    times = (scheduler.timesteps.double() + 1) / schedule.steps
    level = schedule(times)
    scheduler.sigmas = then_zero(level.sigma / level.alpha)
    for k, t in list(zip(scheduler.timesteps.tolist(), levels(level), strict=True))[:stop]:
        noise = {name: draw(x) for name, draw in step.items()}
        x = scheduler.step(eps_from(x, ask(DATA, x, t).x0, t), k, x, **noise).prev_sample
    return x, then_zero(times)


SPACINGS = ["leading", "trailing", "linspace"]


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize(("order", "rule"), [(1, "midpoint"), (2, "midpoint"), (2, "heun")])
@pytest.mark.parametrize("steps", [10, 20])
def test_dpm_solver(compare, order, rule, spacing, steps):
    schedule = LinearBetas(1000)
    scheduler = diffusers.DPMSolverMultistepScheduler(
        1000,
        solver_order=order,
        solver_type=rule,
        final_sigmas_type="zero",
        timestep_spacing=spacing,
    )
    with in_float64(module("dpmsolver_multistep")):
        theirs, times = solve(scheduler, schedule, steps, start())
    sampler = DPMSolverMultistep(steps, order=order, rule=rule)
    ours = run(sampler, DATA, schedule, start(), times=times).x
    kind = f"order {order}{', ' + rule if order == 2 else ''}"
    settings = f"{kind}, 10 and 20 steps, all spacings, in float64"
    compare("DPM-Solver++ multistep", DIFF, settings, largest(ours, theirs), 1e-10)


def test_dpm_solver_order_3(compare):
    """With twice the weight of their second derivative: see `test_faults`."""
    schedule = LinearBetas(1000)
    scheduler = diffusers.DPMSolverMultistepScheduler(
        1000,
        solver_order=3,
        solver_type="heun",
        final_sigmas_type="zero",
        timestep_spacing="trailing",
    )
    with in_float64(module("dpmsolver_multistep")):
        mended = amended(
            diffusers.DPMSolverMultistepScheduler.multistep_dpm_solver_third_order_update,
            "- (alpha_t * ((torch.exp(-h) - 1.0 + h) / h**2 - 0.5)) * D2",
            "- 2 * (alpha_t * ((torch.exp(-h) - 1.0 + h) / h**2 - 0.5)) * D2",
        )
        scheduler.multistep_dpm_solver_third_order_update = mended.__get__(scheduler)
        theirs, times = solve(scheduler, schedule, 20, start())
    ours = run(DPMSolverMultistep(20, order=3), DATA, schedule, start(), times=times).x
    settings = "order 3, heun, with its phi_3 doubled (see below), 20 steps, trailing, in float64"
    compare("DPM-Solver++ multistep", DIFF, settings, largest(ours, theirs), 1e-10)


@pytest.mark.parametrize(("order", "rule"), [(1, "midpoint"), (2, "midpoint"), (2, "heun")])
def test_dpm_solver_sde(compare, order, rule):
    schedule = LinearBetas(1000)
    scheduler = diffusers.DPMSolverMultistepScheduler(
        1000,
        solver_order=order,
        solver_type=rule,
        algorithm_type="sde-dpmsolver++",
        final_sigmas_type="zero",
        timestep_spacing="trailing",
    )
    with in_float64(module("dpmsolver_multistep")):
        theirs, times = solve(scheduler, schedule, 20, start(), variance_noise=Drawn(3).normal)
    sampler = DPMSolverMultistep(20, order=order, eta=1.0, rule=rule)
    ours = run(sampler, DATA, schedule, start(), Drawn(3), times).x
    settings = f"`sde-dpmsolver++`, order {order}{', ' + rule if order == 2 else ''}, 20 steps"
    label = f"{settings}, trailing, in float64"
    compare("DPM-Solver++ multistep SDE", DIFF, label, largest(ours, theirs), 1e-10)


def test_dpm_solver_singlestep(compare):
    """Their middle is the next timestep, ours the middle in log-SNR: alike on an even grid."""
    schedule, count = ContinuousVP(), 10
    scheduler = diffusers.DPMSolverSinglestepScheduler(
        1000, solver_order=2, solver_type="midpoint", final_sigmas_type="zero"
    )
    ends = schedule(torch.tensor([1.0, 1e-3], dtype=torch.float64)).log_snr
    even = torch.linspace(float(ends[0]), float(ends[1]), 2 * count + 1, dtype=torch.float64)
    scheduler.set_timesteps(2 * count + 1)
    scheduler.sigmas = then_zero(torch.exp(-0.5 * even))
    x = start()
    for k, t in zip(scheduler.timesteps, levels(schedule(schedule.time_of(even))), strict=True):
        x = scheduler.step(eps_from(x, ask(DATA, x, t).x0, t), k, x).prev_sample
    times = then_zero(schedule.time_of(even[::2]))
    ours = run(DPMSolver2S(count), DATA, schedule, start(), times=times).x
    settings = "`DPMSolverSinglestepScheduler`, order 2, midpoint, 10 steps even in log-SNR"
    compare("DPM-Solver++(2S)", DIFF, settings, largest(ours, x), 1e-10)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("variant", ["bh1", "bh2"])
@pytest.mark.parametrize("order", [1, 2])
def test_unipc(compare, order, variant, spacing):
    schedule = LinearBetas(1000)
    scheduler = diffusers.UniPCMultistepScheduler(
        1000,
        solver_order=order,
        solver_type=variant,
        final_sigmas_type="zero",
        timestep_spacing=spacing,
    )
    stop = 19 if variant == "bh1" else 20  # see `test_faults`
    theirs, times = solve(scheduler, schedule, 20, start(), stop)
    sampler = UniPC(20, order=order, variant=variant)
    ours = run(sampler, DATA, schedule, start(), times=times[: stop + 1]).x
    last = "without the last" if variant == "bh1" else "final sigma 0"
    settings = f"order {order}, {variant}, 20 steps, {last}, all spacings"
    compare("UniPC", DIFF, settings, largest(ours, theirs), 1e-10)


@pytest.mark.parametrize("variant", ["bh1", "bh2"])
def test_unipc_order_3(compare, variant):
    """Up to the last step: theirs then lowers the order already a step earlier, or divides by 0."""
    schedule = LinearBetas(1000)
    scheduler = diffusers.UniPCMultistepScheduler(
        1000,
        solver_order=3,
        solver_type=variant,
        lower_order_final=False,
        timestep_spacing="trailing",
    )
    theirs, times = solve(scheduler, schedule, 20, start(), stop=19)
    sampler = UniPC(20, order=3, variant=variant)
    ours = run(sampler, DATA, schedule, start(), times=times[:-1]).x
    settings = "order 3, bh1 and bh2, 20 steps without the last, trailing"
    compare("UniPC", DIFF, settings, largest(ours, theirs), 1e-10)


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("steps", [1, 10, 50])
def test_flow_euler(compare, shift, steps):
    """Their grid is even from 1 to the shifted 1/1000, then shifted (once more)."""
    schedule = RectifiedFlow(shift=shift)
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(1000, shift=shift)
    scheduler.set_timesteps(steps)
    last = float(schedule(1e-3).sigma)
    times = torch.linspace(1.0, last, steps, dtype=torch.float64)
    level = schedule(times)
    settings = f"`FlowMatchEulerDiscreteScheduler`, shift {shift:g}, 1, 10 and 50 steps"
    difference = largest(level.sigma, scheduler.sigmas[:-1])
    compare("Flow sigmas", DIFF, settings, difference, 1e-6)
    scheduler.sigmas = then_zero(level.sigma)
    x = start()
    with in_float64(module("flow_match_euler_discrete")):
        for k, t in zip(scheduler.timesteps, levels(level), strict=True):
            x0 = ask(DATA, x, t).x0
            x = scheduler.step(eps_from(x, x0, t) - x0, k, x).prev_sample
    ours = run(DDIM(steps), DATA, schedule, start(), times=then_zero(times)).x
    compare("Flow, Euler", DIFF, f"{settings}, in float64", largest(ours, x), 1e-10)


def test_flow_dpm_solver(compare):
    """DPM-Solver++ on the straight path, alpha = 1 - sigma."""
    schedule = RectifiedFlow()
    scheduler = diffusers.DPMSolverMultistepScheduler(
        1000, use_flow_sigmas=True, prediction_type="flow_prediction", final_sigmas_type="zero"
    )
    scheduler.set_timesteps(20)
    times = torch.linspace(0.99, 0.05, 20, dtype=torch.float64)
    scheduler.sigmas = then_zero(times)
    x = start()
    with in_float64(module("dpmsolver_multistep")):
        for k, t in zip(scheduler.timesteps, levels(schedule(times)), strict=True):
            x0 = ask(DATA, x, t).x0
            x = scheduler.step(eps_from(x, x0, t) - x0, k, x).prev_sample
    ours = run(DPMSolverMultistep(20), DATA, schedule, start(), times=then_zero(times)).x
    settings = "`flow_prediction`, order 2, midpoint, sigma 0.99 to 0.05, 20 steps, in float64"
    compare("DPM-Solver++ multistep on flows", DIFF, settings, largest(ours, x), 1e-10)


def net(x, *_):
    return torch.tanh(1.3 * x) + 0.2 * x.roll(1, 1)


@pytest.mark.parametrize("kind", ["EDMEulerScheduler", "EDMDPMSolverMultistepScheduler"])
def test_edm(compare, kind):
    """Grid, preconditioning and sampler at once."""
    schedule = VarianceExploding()
    model = GaussianDiffusion(
        torch.nn.Identity(), schedule, EDM(0.5), data_std=0.5, input_scaling=True
    )
    model.denoiser.forward = net
    name = "edm_euler" if kind.startswith("EDME") else "edm_dpmsolver_multistep"
    settings = {} if name == "edm_euler" else {"solver_order": 2, "final_sigmas_type": "zero"}
    x = start(std=80)
    with in_float64(module(name)):
        scheduler = getattr(diffusers, kind)(0.002, 80.0, 0.5, rho=7.0, **settings)
        scheduler.set_timesteps(18)
        grid = scheduler.sigmas[:-1].double()
        for k, sigma in zip(scheduler.timesteps, grid, strict=True):
            scaled = scheduler.precondition_inputs(x, sigma)
            x = scheduler.step(net(scaled), k, x).prev_sample
    sampler = DDIM(18, Karras()) if name == "edm_euler" else DPMSolverMultistep(18, Karras())
    ours = run(sampler, model, schedule, start(std=80)).x
    label = f"`{kind}`, sigma_data 0.5, 18 Karras steps from 80 to 0.002, then 0, in float64"
    compare("EDM grid, preconditioning and sampler", DIFF, label, relative(ours, x), 1e-10)


def test_heun_discrete(compare):
    """In sigma space, where theirs calls a step's end before it goes on from its start."""
    schedule = LinearBetas(1000)
    scheduler = diffusers.HeunDiscreteScheduler(
        1000, beta_start=1e-4, beta_end=0.02, timestep_spacing="trailing"
    )
    scheduler.set_timesteps(10)
    nodes = scheduler.timesteps[0::2].double()
    level = schedule((nodes + 1) / 1000)
    sigma = level.sigma / level.alpha
    scheduler.sigmas = then_zero(torch.cat((sigma[:1], sigma[1:].repeat_interleave(2))))
    x = x_ve = start() / level.alpha[0]
    for i, k in enumerate(scheduler.timesteps):
        at = levels(level)[(i + 1) // 2]
        x_vp = at.alpha * x_ve
        x_ve = scheduler.step(eps_from(x_vp, ask(DATA, x_vp, at).x0, at), k, x_ve).prev_sample
    ours = run(
        Heun(10, frame=VE()), DATA, schedule, float(level.alpha[0]) * x, times=then_zero(level.t)
    ).x
    settings = "`HeunDiscreteScheduler`, linear, 10 steps, trailing"
    compare("Heun", DIFF, settings, largest(ours, x_ve), 1e-10)


def test_ancestral_discrete(compare):
    schedule = LinearBetas(1000)
    scheduler = diffusers.EulerAncestralDiscreteScheduler(
        1000, beta_start=1e-4, beta_end=0.02, timestep_spacing="trailing"
    )
    scheduler.set_timesteps(20)
    level = schedule((scheduler.timesteps.double() + 1) / 1000)
    scheduler.sigmas = then_zero(level.sigma / level.alpha)
    x = start() / level.alpha[0]
    generator = torch.Generator().manual_seed(3)
    with in_float64(module("euler_ancestral_discrete")):
        scheduler.is_scale_input_called = True
        for k, t in zip(scheduler.timesteps, levels(level), strict=True):
            x_vp = t.alpha * x
            eps = eps_from(x_vp, ask(DATA, x_vp, t).x0, t)
            x = scheduler.step(eps, k, x, generator=generator).prev_sample
    times = then_zero(level.t)
    ours = run(DDIM(20, eta=1.0), DATA, schedule, start(), Drawn(3), times).x
    settings = "`EulerAncestralDiscreteScheduler`, linear, 20 steps, trailing, in float64"
    compare("Euler ancestral = DDIM(eta=1)", DIFF, settings, largest(ours, x), 1e-10)


class Conditional(torch.nn.Module):
    """A velocity network of 4 classes and the null class, each a mixture of its own."""

    num_classes = 4

    def forward(self, x, c_noise, label):
        return torch.tanh(x * (1 + 0.3 * label.double()[:, None])) - 0.2 * label.double()[:, None]


def conditional():
    model = GaussianDiffusion(Conditional(), RectifiedFlow(), Velocity())
    x, label = start(8), torch.arange(8) % 4
    level = model.schedule(0.6)
    c = ask(model, x, level, label).x0
    u = ask(model, x, level, torch.full_like(label, 4)).x0
    return model, x, label, level, c, u


@pytest.mark.parametrize("scale", [0.0, 1.0, 2.5, 7.0])
def test_classifier_free_guidance(compare, scale):
    """Theirs on eps, ours on x0."""
    guiders = pytest.importorskip("diffusers.guiders")
    model, x, label, level, c, u = conditional()
    guider = guiders.ClassifierFreeGuidance(guidance_scale=scale)
    theirs = guider.forward(eps_from(x, c, level), eps_from(x, u, level)).pred
    ours = eps_from(x, ask(ClassifierFree(scale)(model), x, level, label).x0, level)
    settings = "`ClassifierFreeGuidance` on eps, scale 0, 1, 2.5 and 7"
    compare("Classifier-free guidance", DIFF, settings, largest(ours, theirs), 1e-10)


@pytest.mark.parametrize("share", [0.0, 0.7, 1.0])
def test_guidance_rescale(compare, share):
    pytest.importorskip("diffusers.guiders")
    from diffusers.guiders.guider_utils import rescale_noise_cfg

    model, x, label, level, c, u = conditional()
    theirs = rescale_noise_cfg(u + 3 * (c - u), c, share)
    ours = ask(ClassifierFree(3.0, rule=Rescaled(share))(model), x, level, label).x0
    settings = "`rescale_noise_cfg`, given x0, scale 3, share 0, 0.7 and 1"
    compare("Guidance rescale", DIFF, settings, largest(ours, theirs), 1e-10)


def test_projected_guidance(compare):
    guiders = pytest.importorskip("diffusers.guiders")
    guider = guiders.AdaptiveProjectedGuidance(
        guidance_scale=3.0,
        adaptive_projected_guidance_momentum=-0.5,
        adaptive_projected_guidance_rescale=0.8,
        eta=0.3,
        use_original_formulation=True,
    )
    from diffusers.guiders.adaptive_projected_guidance import MomentumBuffer

    guider.momentum_buffer = MomentumBuffer(-0.5)
    rule = Projected(parallel=0.3, radius=0.8, momentum=-0.5).fresh()
    difference = 0.0
    for seed in range(3):
        c, u = start(8, seed=seed), start(8, seed=seed + 10)
        ours = rule(u, c, torch.tensor(4.0, dtype=torch.float64))
        difference = max(difference, largest(ours, guider.forward(c, u).pred))
    settings = (
        "`AdaptiveProjectedGuidance(use_original_formulation=True)`, its scale 3 is our 4, "
        "eta 0.3, radius 0.8, momentum -0.5, 3 steps"
    )
    compare("Adaptive projected guidance", DIFF, settings, difference, 1e-10)


@pytest.mark.parametrize("quantile", [0.8, 0.995])
def test_dynamic_threshold(compare, quantile):
    scheduler = diffusers.DDPMScheduler(
        10, thresholding=True, dynamic_thresholding_ratio=quantile, sample_max_value=1e9
    )
    x0 = 2 * start(20).view(20, 1, 2, 3)
    level = LinearBetas(10)(0.5)
    ours = DynamicThreshold(quantile)(x0, level)
    settings = "`_threshold_sample`, ratio 0.8 and 0.995"
    difference = largest(ours, scheduler._threshold_sample(x0))
    compare("Dynamic threshold", DIFF, settings, difference, 1e-6)
