"""The report in a real browser: it says nothing on the console, and its parts work."""

import csv
import json
import shutil

import pytest
import torch
from browser import CHROMIUM, Browser
from page_tags import HOSTILE, write_pages

from diffusion_lab.figures.grids import save_grid
from diffusion_lab.reporting.html import write_report

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
PHONE = 390
SHOWN = "[...document.querySelectorAll('{} figure')].findIndex(f => f.checkVisibility())"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    found = Browser(tmp_path_factory.mktemp("profile"))
    yield found
    found.close()


@pytest.fixture
def run_page(run_folder):
    """A run with a film, scores, a study and hostile names."""
    frames = [f"film/step_{k}.png" for k in (3, 2, 1, 0)]
    for name in [*frames, "metrics_nearest.png"]:
        save_grid(run_folder / name, torch.zeros(20, 1, 28, 28))
    write_pages(
        run_folder,
        {"name": HOSTILE[1], "caption": HOSTILE[0], "files": frames},
        {"name": "second", "files": frames[:2]},
        {"name": HOSTILE[2], "error": HOSTILE[0]},
    )
    figures = {"agreement": 0.9, "agreement_low": 0.8, "agreement_high": 0.95}
    figures |= {"per_class": [0.9, 1.0], "class_names": HOSTILE[:2]}
    (run_folder / "metrics.json").write_text(json.dumps(figures))
    rows = [{"row": text, "fd": float(k)} for k, text in enumerate([*HOSTILE, "x" * 90])]
    study = {"study": "frontier", "claim": HOSTILE[4], "table": rows}
    (run_folder / "study.json").write_text(json.dumps(study))
    (run_folder / "overrides.txt").write_text("\n".join(f"name={text}" for text in HOSTILE))
    summary = {"status": HOSTILE[0], "git": "0" * 64, "data": {"sha256": "f" * 64}}
    (run_folder / "summary.json").write_text(json.dumps(summary))
    return write_report(run_folder)


@pytest.fixture
def sweep_page(run_folder):
    """A sweep whose jobs have hostile names."""
    folder = run_folder.parent / "sweep"
    names = [*(text.replace("/", "") for text in HOSTILE), "plain", "x" * 100]
    losses = ["0.9", "10", "2", "", "1e-1", "3", "4", "5"]
    for name in names:
        shutil.copytree(run_folder, folder / name)
        (folder / name / "report.html").write_text("")
    with (folder / "sweep.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["job", "status", HOSTILE[0], "lr", "val/loss", "train/loss", "error"])
        for k, (name, loss) in enumerate(zip(names, losses, strict=False)):
            status = "finished" if loss else "failed"
            table.writerow([name, status, HOSTILE[k % 4], 10.0**-k, loss, loss, ""])
    return write_report(folder)


def test_the_page_of_a_run_works(browser, run_page):
    browser.open(run_page)
    assert browser.run(SHOWN.format(".epochs")) == 2
    browser.run("document.querySelector('.epochs input').focus()")
    browser.press("ArrowLeft")
    assert browser.run(SHOWN.format(".epochs")) == 1
    assert browser.run("document.querySelector('.epochs output').textContent") == "epoch 2"
    assert browser.run(SHOWN.format(".moments")) == 3, "films are independent"
    browser.run("document.querySelector('.moments .play').click()")
    assert browser.run(SHOWN.format(".moments")) == 0
    browser.until(f"{SHOWN.format('.moments')} === 3")
    browser.until("document.querySelector('.moments .play').textContent === 'Play'")
    assert browser.run(SHOWN.format(".epochs")) == 1
    assert browser.complaints() == []


@pytest.mark.parametrize(("wish", "pause"), [("reduce", 1200), ("no-preference", 750)])
def test_a_film_is_slow_where_motion_is_not_wanted(browser, run_page, wish, pause):
    wished = [{"name": "prefers-reduced-motion", "value": wish}]
    browser.call("Emulation.setEmulatedMedia", features=wished)
    browser.open(run_page)
    browser.run("window.setInterval = (step, pause) => { window.asked = pause; return 1; }")
    browser.run("document.querySelector('.moments .play').click()")
    assert browser.run("window.asked") == pause
    browser.call("Emulation.setEmulatedMedia", features=[])


def test_curves_tell_values_to_mouse_and_keys(browser, run_page):
    browser.open(run_page)
    keys = "document.querySelector('.chart .keys').innerText.replace(/\\s+/g, ' ')"
    before = browser.run(keys)
    browser.move(".chart svg", 0.55)
    during = browser.run(keys)
    assert "at step " in during and "val/loss 0.21 (step 59)" in during
    step = int(during.rpartition("at step ")[2])
    value = f"train/loss {1 / (step + 1):.5g} "
    assert 10 < step < 50 and value in during
    assert browser.run("getComputedStyle(document.querySelector('.rule')).visibility") == "visible"
    browser.run("document.querySelector('.chart svg').focus()")
    browser.press("ArrowRight")
    assert f"at step {step + 1}" in browser.run(keys)
    browser.press("Home")
    assert "train/loss 1 " in browser.run(keys)
    said = "document.querySelector('.chart svg').getAttribute('aria-valuetext')"
    assert browser.run(said) == "step 0: train/loss 1, val/loss 0.21 (step 59)"
    browser.run("document.querySelector('.chart svg').blur()")
    assert browser.run(keys) == before
    assert browser.complaints() == []


TICKS = "[...document.querySelectorAll('.chart .across text')].map(t => Number(t.textContent))"


def test_a_range_of_a_chart_is_zoomed_by_dragging_and_shown_whole_by_a_double_click(
    browser, run_page
):
    browser.open(run_page)
    browser.run("document.querySelectorAll('.chart').forEach((c, k) => k && c.remove())")
    up = TICKS.replace("across", "up")
    whole, heights = browser.run(TICKS), browser.run(up)
    browser.move(".chart svg", 0.6, "mousePressed", 1)
    browser.move(".chart svg", 0.9)
    assert browser.run("Number(document.querySelector('.band').getAttribute('width'))") > 100
    browser.move(".chart svg", 0.9, "mouseReleased", 1)
    assert browser.run("Number(document.querySelector('.band').getAttribute('width'))") == 0
    near = browser.run(TICKS)
    assert whole[0] < 20 < near[0] < near[-1] < 56 and len(near) >= 2
    assert max(browser.run(up)) < max(heights), "the axis up fits what is shown"
    browser.run("document.querySelector('.chart svg').focus()")
    browser.press("Home")
    assert 25 < int(browser.run("document.querySelector('.at').textContent").split()[-1]) < 40
    for clicks in (1, 2):
        for kind in ("mousePressed", "mouseReleased"):
            browser.move(".chart svg", 0.5, kind, clicks)
    assert (browser.run(TICKS), browser.run(up)) == (whole, heights)
    assert browser.complaints() == []


@pytest.mark.parametrize("how", ["keys", "buttons"])
def test_keys_and_buttons_zoom_too(browser, run_page, how):
    browser.open(run_page, PHONE, 844)
    whole = browser.run(TICKS)
    for act in ("+", "+") if how == "keys" else (0, 0):
        browser.run("document.querySelector('.chart svg').focus()")
        click = f"document.querySelectorAll('.chart .zoom button')[{act}].click()"
        browser.press(act) if how == "keys" else browser.run(click)
    near = browser.run(TICKS)
    assert 2 <= len(near) <= 9 and near[-1] - near[0] < 0.4 * (whole[-1] - whole[0])
    browser.press("0") if how == "keys" else browser.run(click.replace("[0]", "[1]"))
    assert browser.run(TICKS) == whole
    assert browser.complaints() == []


def test_a_line_hides_and_comes_back_by_its_name(browser, run_page):
    browser.open(run_page)
    train = "document.querySelector('.chart [data-name=\"train/loss\"]')"
    button = "document.querySelector('.chart button.key')"
    assert browser.run(f"{button}.textContent").startswith("train/loss")
    browser.run(f"{button}.click()")
    assert browser.run(f"getComputedStyle({train}).visibility") == "hidden"
    assert browser.run(f"{button}.ariaPressed") == "false"
    browser.move(".chart svg", 0.5)
    said = "document.querySelector('.chart svg').getAttribute('aria-valuetext')"
    assert browser.run(said) == "step 59: val/loss 0.21", "it is not read any more"
    browser.run(f"{button}.click()")
    assert browser.run(f"getComputedStyle({train}).visibility") == "visible"
    browser.move(".chart svg", 0.5)
    assert "train/loss" in browser.run(said)
    assert browser.complaints() == []


def test_a_finger_reads_a_curve(browser, run_page):
    browser.open(run_page, PHONE, 844)
    browser.run("document.querySelector('.chart svg').scrollIntoView({block: 'center'})")
    box = "document.querySelector('.chart svg').getBoundingClientRect()"
    x, y = browser.run(f"(() => {{ const b = {box}; return [b.x + b.width / 2, b.y + 60]; }})()")
    browser.call("Input.dispatchTouchEvent", type="touchStart", touchPoints=[{"x": x, "y": y}])
    browser.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
    browser.until("document.querySelector('.chart .at').textContent.startsWith('at step ')")
    assert browser.complaints() == []


def test_tables_sort_numbers_as_numbers(browser, sweep_page):
    browser.open(sweep_page)
    column = "[...document.querySelectorAll('.jobs tbody tr')].map(r => r.cells[{}].textContent)"
    click = "document.querySelectorAll('.jobs thead button')[{}].click()"
    best_first = ["0.1", "0.9", "2", "3", "4", "5", "10", "–"]
    assert browser.run(column.format(4)) == best_first
    browser.run(click.format(4))
    assert browser.run(column.format(4)) == best_first
    browser.run(click.format(4))
    assert browser.run(column.format(4)) == [*reversed(best_first[:-1]), "–"]
    assert browser.run("document.querySelectorAll('.jobs th')[4].ariaSort") == "descending"
    browser.run(click.format(0))
    names = browser.run(column.format(0))
    assert names[-1] == "x" * 100 and len(names) == 8
    assert browser.complaints() == []


def test_the_charts_of_a_sweep_name_the_job_under_the_pointer(browser, sweep_page):
    browser.open(sweep_page)
    browser.move("#effects svg", 0.25)
    assert ": 0.9 at" in browser.run("document.querySelector('#effects .at').textContent")
    browser.move("#curves svg", 0.5)
    assert "at step" in browser.run("document.querySelector('#curves .at').textContent")
    assert browser.run("document.querySelectorAll('#curves .curve.on').length") == 1
    browser.run("document.querySelector('#curves details button').click()")
    hidden = "[...document.querySelectorAll('#curves .chart')][0].querySelectorAll('.off').length"
    assert browser.run(hidden) == 1, "by the name of the best one"
    best = "document.querySelector('#curves .chart').querySelector('.curve:last-of-type')"
    assert browser.run(f"{best}.classList.contains('off')"), "which is drawn on top"
    shown = "[...document.querySelectorAll('#effects .charts')].map(part => part.checkVisibility())"
    assert browser.run(shown) == [True, False]
    browser.run("document.querySelectorAll('#effects summary')[1].click()")
    assert browser.run(shown) == [False, True]
    assert browser.complaints() == []


@pytest.mark.parametrize("kind", ["run_page", "sweep_page"])
def test_a_phone_needs_no_scrolling_sideways_and_hostile_names_do_nothing(browser, kind, request):
    page = request.getfixturevalue(kind)
    browser.open(page, PHONE, 844)
    wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert browser.run(wide) == 0
    assert browser.run("document.title").endswith("· diffusion_lab")
    assert browser.run("document.querySelectorAll('script').length") == 1
    assert browser.run("document.querySelectorAll('img[src=x], [onerror]').length") == 0
    text = browser.run("document.body.innerText")
    for hostile in HOSTILE[:4]:
        assert hostile in text or hostile.replace("/", "") in text
    links = browser.run("[...document.querySelectorAll('a')].map(a => new URL(a.href).protocol)")
    assert set(links) == {"file:"}
    assert browser.complaints() == []


def test_commands_are_copied(browser, run_page):
    browser.open(run_page)
    assert browser.run("document.querySelectorAll('.command .copy').length") > 4
    browser.run("document.querySelector('.command .copy').click()")
    browser.until("document.querySelector('.command .copy').textContent !== 'Copy'")
    assert browser.complaints() == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_follows_the_colours_of_the_system(browser, run_page, scheme):
    browser.call(
        "Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}]
    )
    browser.open(run_page)
    colour = browser.run("getComputedStyle(document.body).backgroundColor")
    red = int(colour.removeprefix("rgb(").split(",")[0])
    assert (red > 128) == (scheme == "light")


def test_complaints_are_heard(browser, tmp_path):
    page = tmp_path / "bad.html"
    policy = "<meta http-equiv=Content-Security-Policy content=\"default-src 'none'\">"
    page.write_text(f"{policy}<p style='color: red'>x</p><script>alert(1)</script>")
    browser.open(page)
    assert len(browser.complaints()) >= 2
    page.write_text("<script>throw new Error('lost')</script>")
    browser.open(page)
    assert "lost" in " ".join(browser.complaints())
