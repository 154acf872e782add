"""The networks' contract: shapes, conditions, a zero start, refusals, speed-relevant layout."""

import itertools
import re
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from diffusion_lab.denoisers import layers
from diffusion_lab.denoisers.attention import SelfAttention, attend
from diffusion_lab.denoisers.blocks import Bilinear, MaxPool, PlainBlock, ResBlock
from diffusion_lab.denoisers.cnn import CNN
from diffusion_lab.denoisers.conditioner import Conditioner, SinusoidalEmbedding
from diffusion_lab.denoisers.mlp import MLP
from diffusion_lab.denoisers.unet import UNet


def unet(**options):
    torch.manual_seed(0)
    fixed = dict(channels=1, image_size=8, num_classes=10, base_channels=8, multipliers=(1, 2))
    return UNet(**{**fixed, "attention": (4,), "heads": 2, "time_dim": 16, **options})


def ask(net, x, c_noise, label=None, **further):
    """As a model calls a network."""
    return net(x, *net.condition_inputs(x, c_noise, label, **further))


def awake(net):
    """Give the parameters that start at zero a value, so that every part has an effect."""
    generator = torch.Generator().manual_seed(1)
    for parameter in net.parameters():
        if not parameter.any():
            with torch.no_grad():
                parameter.normal_(0, 0.1, generator=generator)
    return net


def batch(channels=1, size=8, n=3):
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(n, channels, size, size, generator=generator)
    return x, torch.linspace(10, 900, n), torch.arange(n)


OPTIONS = [
    {},
    {"channels": 3},
    {"num_classes": None},
    {"multipliers": (1,), "attention": (8,)},
    {"multipliers": (1, 2, 3), "attention": (8, 4, 2)},
    {"base_channels": 5, "heads": 5},
    {"patch": 2, "attention": (2,)},
    {"blocks_per_level": 2, "middle_blocks": 1},
    {"decoder_attention": False, "attention": (8,)},
    {"block": partial(ResBlock, scale_shift=False, dropout=0.2), "time_in_every_block": False},
    {"widen_in_blocks": True, "multipliers": (1, 2, 3), "attention": (8, 4, 2)},
    {"widen_in_blocks": True, "down": MaxPool, "up": Bilinear, "block": PlainBlock},
    {"time_hidden": 0},
    {"time_hidden": 24, "num_classes": None},
    {"stem": False, "out_kernel": 1, "out_norm": False},
    {"blocks_per_level": 2, "attention": (8,), "attention_every_block": False},
    {"norm": layers.batch_norm, "activation": layers.relu},
    {"norm": layers.no_norm, "activation": layers.gelu},
    {"learned_variance": True},
    {"self_conditioning": True},
    {"attention": ()},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: re.sub(" at 0x[0-9a-f]+", "", str(o)))
def test_unet_starts_at_zero_and_reaches_every_parameter(options):
    net = unet(**options)
    x, c_noise, label = batch(options.get("channels", 1))
    label = None if net.num_classes is None else label
    shape = (3, 2 if "learned_variance" in options else x.shape[1], 8, 8)
    assert torch.equal(ask(net, x, c_noise, label), torch.zeros(shape))
    out = ask(awake(net), x, c_noise, label)
    assert out.shape == shape and out.isfinite().all()
    out.square().sum().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None] == []


@given(
    base=st.integers(1, 9),
    multipliers=st.lists(st.integers(1, 3), min_size=1, max_size=3),
    patch=st.sampled_from([1, 2]),
    channels=st.integers(1, 4),
    scale=st.integers(1, 2),
)
def test_unet_of_any_widths_and_sizes(base, multipliers, patch, channels, scale):
    size = scale * patch * 2 ** (len(multipliers) - 1)
    net = UNet(
        channels,
        size,
        base_channels=base,
        multipliers=multipliers,
        patch=patch,
        attention=(),
        time_dim=4,
    )
    x = torch.zeros(2, channels, size, size)
    assert ask(net, x, torch.zeros(2)).shape == x.shape


@pytest.mark.parametrize("build", [unet, lambda: CNN(num_classes=10, width=8, blocks=2)])
def test_noise_level_and_class_have_an_effect(build):
    net = awake(build()).eval()
    x, c_noise, label = batch()
    out = ask(net, x, c_noise, label)
    assert not torch.allclose(out, ask(net, x, c_noise + 50, label))
    assert not torch.allclose(out, ask(net, x, c_noise, label + 1))
    null = torch.full_like(label, 10)
    assert torch.equal(ask(net, x, c_noise, None), ask(net, x, c_noise, null))


@pytest.mark.parametrize("options", [{}, {"patch": 2, "attention": (2,)}])
def test_samples_do_not_mix(options):
    net = awake(unet(**options)).double().eval()
    x, c_noise, label = batch(n=5)
    x, c_noise = x.double(), c_noise.double()
    together = ask(net, x, c_noise, label)
    alone = [ask(net, x[i : i + 1], c_noise[i : i + 1], label[i : i + 1]) for i in range(5)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-12)


def test_same_in_training_and_evaluation_and_when_repeated():
    net = awake(unet())
    x, c_noise, label = batch()
    out = ask(net, x, c_noise, label)
    assert torch.equal(out, ask(net, x, c_noise, label))
    with torch.no_grad():
        torch.testing.assert_close(ask(net.eval(), x, c_noise, label), out, rtol=0, atol=1e-5)


def test_dropout_is_governed_by_the_global_seed():
    net = awake(unet(block=partial(ResBlock, dropout=0.5)))
    x, c_noise, label = batch()
    outs = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        outs.append(ask(net, x, c_noise, label))
    assert torch.equal(outs[0], outs[1]) and not torch.equal(outs[0], outs[2])


def test_time_in_the_first_block_only():
    net = unet(blocks_per_level=2, time_in_every_block=False)
    for stage in [*net.encoder, net.middle, *net.decoder]:
        assert [block.condition is None for block in stage.blocks] == [False, True]


def test_attention_stands_where_it_was_asked_for():
    def sides(net):
        seen = []
        for module in net.modules():
            if isinstance(module, SelfAttention):
                module.register_forward_hook(lambda m, i, o: seen.append(o.shape[-1]))
        ask(net, *batch())
        return seen

    assert sides(unet(attention=(8, 4))) == [8, 4, 8]
    assert sides(unet(attention=(8,), decoder_attention=False)) == [8]
    assert sides(unet(attention=())) == []
    twice = {"attention": (8,), "decoder_attention": False, "blocks_per_level": 2}
    assert sides(unet(**twice)) == [8, 8]
    assert sides(unet(**twice, attention_every_block=False)) == [8]


@given(size=st.integers(5, 40), channels=st.integers(1, 3), patch=st.sampled_from([1, 2]))
def test_padding_takes_any_size_and_changes_none_that_fits(size, channels, patch):
    net = unet(channels=channels, image_size=size, patch=patch, pad=True, attention=())
    x = torch.randn(2, channels, size, size)
    assert ask(awake(net), x, torch.ones(2), None).shape == x.shape
    if size % (2 * patch) == 0:
        plain = unet(channels=channels, image_size=size, patch=patch, attention=())
        plain.load_state_dict(net.state_dict())
        assert torch.equal(ask(net, x, torch.ones(2)), ask(plain, x, torch.ones(2)))


def test_widths_of_both_layouts():
    def seen(net):
        shapes = []
        for part in [*net.encoder, net.middle, *net.decoder]:
            part.register_forward_hook(lambda m, i, o: shapes.append(tuple(o.shape[1:3])))
        ask(net, *batch())
        return shapes

    deep = {"multipliers": (1, 2, 4), "attention": ()}
    at_sizes, in_blocks = seen(unet(**deep)), seen(unet(**deep, widen_in_blocks=True))
    assert at_sizes == [(8, 8), (16, 4), (32, 2), (16, 4), (8, 8)]
    assert in_blocks == [(16, 8), (32, 4), (32, 2), (16, 4), (8, 8)]


def test_autocast_and_meta_device():
    net = awake(unet())
    with torch.autocast("cpu", torch.bfloat16):
        out = ask(net, *batch())
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), ask(net, *batch()), rtol=0.1, atol=0.1)
    with torch.device("meta"):
        assert next(unet().parameters()).is_meta


@pytest.mark.parametrize("grad", [True, False])
def test_attend_is_scaled_dot_product_attention(grad):
    generator = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 2, 4, 6, 5, generator=generator, dtype=torch.float64)
    expected = F.scaled_dot_product_attention(q, k, v)
    out = attend(q.requires_grad_(grad), k, v)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)


def test_self_attention_and_res_block_start_as_the_identity():
    x = torch.randn(2, 8, 4, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(SelfAttention(8)(x), x)
    assert torch.equal(ResBlock(8, 8)(x), x)


def test_attention_moves_with_a_permutation_of_pixels():
    net = awake(SelfAttention(8, heads=2)).double()
    x = torch.randn(2, 8, 3, 3, dtype=torch.float64)
    turned = net(x.flip(-1))
    torch.testing.assert_close(turned, net(x).flip(-1), rtol=0, atol=1e-12)


def test_sinusoid_against_its_formula():
    out = SinusoidalEmbedding(4, max_period=100.0)(torch.tensor([0.0, 7.0]))
    expected = torch.tensor([[1.0, 1.0, 0.0, 0.0], [7.0, 0.7, 7.0, 0.7]])
    expected[1, :2], expected[1, 2:] = expected[1, :2].cos(), expected[1, 2:].sin()
    torch.testing.assert_close(out, expected)


def test_null_class_is_the_last_row():
    embed = Conditioner(8, 3, layers.silu, time_hidden=0)
    assert embed.table.weight.shape == (4, 8)
    c_noise = torch.zeros(2)
    difference = embed(c_noise, torch.tensor([3, 0])) - embed(c_noise, None)
    torch.testing.assert_close(difference[0], torch.zeros(8))
    torch.testing.assert_close(difference[1], embed.table.weight[0] - embed.table.weight[3])


@given(channels=st.integers(1, 200), size=st.integers(1, 40))
def test_group_count_adapts(channels, size):
    norm = layers.group_norm(channels, group_size=size)
    assert channels % norm.num_groups == 0
    assert channels // norm.num_groups <= size
    assert layers.group_norm(channels, groups=size).num_groups <= size


@pytest.mark.parametrize(("shape", "classes"), itertools.product([(2,), (3, 4)], [None, 5]))
def test_mlp(shape, classes):
    net = MLP(shape, classes, width=16, time_dim=8)
    x = torch.randn(4, *shape)
    assert torch.equal(ask(net, x, torch.ones(4)), torch.zeros_like(x))
    assert ask(awake(net), x, torch.ones(4)).shape == x.shape


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: UNet(1, 27), "image_size=27.*take 24 or 28"),
        (lambda: UNet(1, 28, multipliers=(1, 2, 2, 2)), "image_size=28.*take 24 or 32"),
        (lambda: UNet(1, 2), "image_size=2.*take 4,"),
        (lambda: UNet(1, 28, multipliers=()), r"multipliers=\[\]"),
        (lambda: UNet(1, 28, heads=5, base_channels=16), "heads=5.*64 channels.*1, 2, 4, 8"),
        (lambda: UNet(1, 28, attention=(9,)), "attention=9.*28, 14, 7"),
        (lambda: UNet(0, 28), "channels=0"),
        (lambda: UNet(1, 28, base_channels=0), "base_channels=0"),
        (lambda: UNet(1, 28, patch=0), "patch=0"),
        (lambda: UNet(1, 28, time_dim=7), "dim=7.*take 6 or 8"),
        (lambda: UNet(1, 28, block=partial(ResBlock, dropout=1.0)), "dropout=1.0"),
        (lambda: UNet(1, 28, num_classes=0), "num_classes=0"),
        (lambda: CNN(width=0), "width=0"),
        (lambda: CNN(block=partial(ResBlock, dropout=-0.1)), "dropout=-0.1"),
        (lambda: UNet(1, 28, out_kernel=2), "out_kernel=2.*odd"),
        (lambda: UNet(1, 28, time_hidden=-1), "time_hidden=-1"),
        (lambda: UNet(1, 28, down=MaxPool), "down.*widen_in_blocks=true"),
        (lambda: UNet(1, 28, up=Bilinear), "up.*widen_in_blocks=true"),
        (lambda: UNet(1, 28, base_channels=6, attention=(28,)), "heads=4.*6 channels"),
        (lambda: UNet(1, 3, multipliers=(1, 1, 1, 1), pad=True), "image_size=3.*fewer levels"),
        (lambda: MLP(shape=()), r"shape=\[\]"),
        (lambda: MLP(width=0), "width=0"),
        (lambda: layers.group_norm(4, groups=0), "groups=0"),
    ],
)
def test_refusals_name_the_argument_and_what_fits(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_a_label_for_a_net_without_classes_is_refused():
    x, c_noise, label = batch()
    with pytest.raises(ValueError, match="label"):
        ask(unet(num_classes=None), x, c_noise, label)


@pytest.mark.parametrize(("size", "smallest"), [(28, 7), (32, 8), (64, 16)])
def test_the_smallest_map_has_attention_whatever_the_image(size, smallest):
    chosen = {"image_size": size, "patch": 2}
    named = unet(**chosen, attention=(smallest,)).state_dict()
    found = unet(**chosen, attention="smallest").state_dict()
    assert list(found) == list(named)
    assert all(torch.equal(found[name], named[name]) for name in named)
    assert any("qkv" in name for name in found)
