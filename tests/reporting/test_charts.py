"""Charts: averaging, placing, ticks."""

import math

import pytest

from diffusion_lab.reporting.charts import X_ENDS, Y_ENDS, charts, overlay, parameter_axis, thin


def test_thinning_keeps_the_mean_and_the_last_step():
    points = [(float(k), float(k * k)) for k in range(1000)]
    kept = thin(points, most=100)
    assert len(kept) == 100
    assert kept[-1][0] == 999
    assert sum(v for _, v in kept) / 100 == pytest.approx(sum(v for _, v in points) / 1000)
    assert thin(points[:50], most=100) == points[:50]


def test_metrics_with_one_last_name_share_a_chart_and_losses_come_first():
    made = charts(
        {
            "lr": [(0, 1e-3), (1, 5e-4)],
            "train/loss": [(0, 1.0), (1, 0.5)],
            "val/loss": [(1, 0.6)],
        }
    )
    assert [chart.title for chart in made] == ["loss", "learning rate"]
    assert [line.name for line in made[0].lines] == ["train/loss", "val/loss"]
    dot = made[0].lines[1].dots[0]
    assert (dot.value, dot.at) == ("0.6", "1")
    assert [dot.value for dot in made[0].lines[0].dots] == ["1", "0.5"]
    assert [dot.at for dot in made[0].lines[0].dots] == ["0", "1"]


def test_dots_stand_at_the_corners_of_the_box():
    assert not charts({"lr": [(k, 1e-3 * (1 - k / 100)) for k in range(100)]})[0].up.log
    (chart,) = charts({"x": [(10, 2.0), (20, 3.0), (30, 4.0)]})
    first, middle, last = chart.lines[0].dots
    assert (first.x, first.y) == (X_ENDS[0], Y_ENDS[0])
    assert (last.x, last.y) == (X_ENDS[1], Y_ENDS[1])
    assert middle.y == pytest.approx(sum(Y_ENDS) / 2)
    assert not chart.up.log


def test_a_wide_positive_span_becomes_logarithmic_with_decades():
    (chart,) = charts({"x": [(0, 1000.0), (1, 10.0), (2, 1.0)]})
    assert chart.up.log
    assert [*chart.up.ticks().values()] == ["1", "10", "100", "1000"]
    places = [*chart.up.ticks()]
    assert places[0] - places[1] == pytest.approx(places[2] - places[3])


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-3, 7), (0.12, 0.13), (1e-9, 2e-9), (0, 3e5)])
def test_ticks_are_few_and_inside(low, high):
    (chart,) = charts({"x": [(low, low), (high, high)]})
    assert 2 <= len(chart.across.ticks()) <= 9
    assert all(X_ENDS[0] - 1e-6 <= place <= X_ENDS[1] + 1e-6 for place in chart.across.ticks())


def test_constant_single_and_broken_values_are_drawn_or_left_out():
    made = charts(
        {
            "constant": [(0, 2.0), (5, 2.0)],
            "single": [(3, -1.0)],
            "zero": [(0, 0.0)],
            "diverged": [(0, 1.0), (1, math.nan), (2, math.inf)],
            "nothing": [(0, math.nan)],
        }
    )
    assert {chart.title for chart in made} == {"constant", "single", "zero", "diverged"}
    assert all(
        math.isfinite(v) for c in made for line in c.lines for d in line.dots for v in (d.x, d.y)
    )


def test_runs_are_laid_over_each_other_and_those_without_values_are_left_out():
    runs = {"a": [(0, 1.0), (1, 0.5)], "b": [(0, math.nan)], "c": [], "d": [(0, 2.0)]}
    chart = overlay("val/loss", runs)
    assert [line.name for line in chart.lines] == ["a", "d"] and chart.crowded
    assert overlay("val/loss", {"b": [(0, math.inf)]}) is None


def test_large_steps_are_written_out():
    (chart,) = charts({"x": [(1_234_567, 1.0), (2_345_678, 2.0)]})
    assert [dot.at for dot in chart.lines[0].dots] == ["1234567", "2345678"]


def test_a_small_constant_stands_at_its_own_tick():
    (chart,) = charts({"train/lr": [(0, 0.001), (5, 0.001)]})
    assert "0.001" in chart.up.ticks().values()
    assert all(0 < float(text) < 0.002 for text in chart.up.ticks().values())


def test_values_of_a_parameter_stand_where_they_belong():
    middle = sum(X_ENDS) / 2
    axis, places = parameter_axis(["b", "a", "null"])
    start, *rest = (axis(places[name]) for name in ("b", "a", "null"))
    assert rest == pytest.approx([middle, 2 * middle - start]) and start > X_ENDS[0]
    axis, places = parameter_axis(["3", "1", "2"])
    assert axis(places["2"]) == pytest.approx(middle)
    assert [*axis.ticks().values()] == ["1", "2", "3"]
    many, _ = parameter_axis([str(k) for k in range(1, 200)])
    assert 2 <= len(many.ticks()) <= 9
    named, places = parameter_axis([f"a {k}" for k in range(50)])
    assert named.text(places["a 7"]) == "a\N{NO-BREAK SPACE}7" and 2 <= len(named.ticks()) <= 6
