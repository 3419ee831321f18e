"""The report clicked through in headless Chromium, opened as a file: what a person sees, presses and reads."""

import dataclasses
import json
import re
import shutil

import pytest
from helpers.answer_examples import make_record, two_call_line

from benchmarks.report_page import many_lines, many_records, open_browser, press, wait
from jaxtool.report import chunks, page
from jaxtool.rundir.answer_records import Part
from jaxtool.rundir.trajectory_log import view_from_row

pytestmark = pytest.mark.slow

HOSTILE = (
    "</script><script>document.title='owned'</script><img src=x onerror=document.title='owned'>"
)
SHOWN = "return document.querySelector('.detail .text, .detail .tokens, .columns .part') !== null"
# Contrast of each text that is on the page, by the colours that the browser computed.
POOR_TEXT = """
const rgb = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
const linear = (v) => { const c = v / 255; return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
// Paints the backgrounds one over the other, so that any notation and transparency counts as it looks.
function ground(node) {
  const layers = [];
  for (let at = node; at; at = at.parentElement) layers.push(getComputedStyle(at).backgroundColor);
  canvas.globalCompositeOperation = 'source-over';
  canvas.clearRect(0, 0, 1, 1);
  for (const layer of layers.reverse()) { canvas.fillStyle = layer; canvas.fillRect(0, 0, 1, 1); }
  return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
}
function drawn(color, under) {
  canvas.fillStyle = `rgb(${under.join(',')})`; canvas.fillRect(0, 0, 1, 1);
  canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
  return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
}
const poor = new Set();
const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
let seen = 0;
while (texts.nextNode()) {
  const node = texts.currentNode.parentElement;
  if (!texts.currentNode.data.trim() || node.closest('script, style, noscript, option, .tip')) continue;
  if (!node.checkVisibility({ visibilityProperty: true }) || node.closest(':disabled')) continue;
  seen += 1;
  const style = getComputedStyle(node);
  const under = ground(node);
  const [low, high] = [light(drawn(node.namespaceURI.includes('svg') ? style.fill : style.color, under)), light(under)].sort((a, b) => a - b);
  const ratio = (high + 0.05) / (low + 0.05);
  if (ratio < 4.5) poor.add(`${node.tagName} .${node.className.baseVal ?? node.className}: ${ratio.toFixed(2)}`);
}
return [seen, [...poor]];
"""


@pytest.fixture(scope="module")
def browser():
    try:
        found = open_browser()
    except FileNotFoundError as error:
        pytest.skip(f"the report is not clicked through: {error}")
    yield found
    found.quit()


def views(count: int = 8):
    return tuple(view_from_row(line) for line in many_lines(count, tokens=300))


def run_report(**changes) -> page.Report:
    """A run as `python -m jaxtool.report` shows it: headlines, curves, folded sections, trajectories."""
    series = (page.Series(name="grpo", xs=[0, 1, 2], ys=[0.5, 0.6, 0.7]),)
    curve = page.Curve(
        title="Accuracy", x_label="step", y_label="", series=series, note="Share right."
    )
    folded = page.Section(
        title="policy", curves=(dataclasses.replace(curve, title="loss"),), is_folded=True
    )
    table = page.Table(
        title="All", columns=("Policy", "Accuracy"), rows=(("grpo", 0.5), ("otc", None))
    )
    values = {
        "title": "A run",
        "variants": ("grpo", "otc"),
        "headlines": (
            page.Headline(label="Accuracy", value="0.7", note="Share of right answers."),
        ),
        "sections": (page.Section(title="training", curves=(curve,), tables=(table,)), folded),
        "trajectories": views(),
        "config": "x.y = 1\n",
    }
    return page.Report(**values | changes)


@pytest.fixture
def opened(browser, tmp_path):
    """Opens a report and waits for its first answer."""

    def open_report(report: page.Report, link: str = ""):
        path = page.write_report(tmp_path / "report.html", report)
        browser.get("about:blank")
        browser.get(path.as_uri() + link)
        wait(browser, SHOWN)
        return path

    browser.set_window_size(1400, 900)
    return open_report


def texts(browser, selector: str) -> list[str]:
    return browser.execute_script(
        "return [...document.querySelectorAll(arguments[0])].map((node) => node.textContent)",
        selector,
    )


def text(browser, selector: str) -> str:
    [found] = texts(browser, selector)
    return found


def click(browser, selector: str) -> None:
    browser.execute_script("document.querySelector(arguments[0]).click()", selector)


def choose(browser, selector: str, value: str) -> None:
    browser.execute_script(
        "const node = document.querySelector(arguments[0]); node.value = arguments[1];"
        "node.dispatchEvent(new Event('change'))",
        selector,
        value,
    )


def wait_for_text(browser, selector: str, pattern: str) -> None:
    found = f"document.querySelector({json.dumps(selector)})"
    wait(browser, f"return {found} !== null && /{pattern}/.test({found}.textContent)")


def errors(browser) -> list[str]:
    return [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]


@pytest.mark.parametrize("missing", ["chromium", "chromedriver"])
def test_without_a_browser_the_message_says_what_to_install(missing, monkeypatch):
    found = {"chromium": "/usr/bin/chromium", "chromedriver": "/usr/bin/chromedriver"}
    monkeypatch.setattr(shutil, "which", lambda name: None if name == missing else found.get(name))
    with pytest.raises(FileNotFoundError, match=f"there is no {missing} here: install chromium"):
        open_browser()


def test_a_browser_that_does_not_start_is_one_line(monkeypatch):
    driver = shutil.which("chromedriver")
    if driver is None:
        pytest.skip("no chromedriver on this machine")
    monkeypatch.setattr(shutil, "which", lambda name: driver if name == "chromedriver" else "/no")
    with pytest.raises(FileNotFoundError, match="/no does not start here: ") as raised:
        open_browser()
    assert "\n" not in str(raised.value)


def test_the_first_screen_says_what_matters_and_the_rest_is_folded(browser, opened):
    opened(run_report())
    assert texts(browser, ".headline .value") == ["0.7"]
    assert texts(browser, ".headline .note") == ["Share of right answers."]
    assert texts(browser, "main h2") == ["training", "Answers", "policy", "Configuration"]
    assert browser.execute_script("return document.querySelector('details.section').open") is False
    assert text(browser, ".count") == "8 of 8 answers"
    assert len(texts(browser, ".item")) == 8
    assert errors(browser) == []


def test_what_a_policy_wrote_is_text_and_no_program_runs_but_ours(browser, opened, monkeypatch):
    monkeypatch.setattr(chunks, "MAX_INSIDE", 0)  # with the looser policy of a page beside chunks
    line = two_call_line(
        question=HOSTILE, reference_answer=HOSTILE, problem_id=HOSTILE, variant=HOSTILE
    )
    line["tokens"]["text"][2] = HOSTILE
    opened(run_report(title=HOSTILE, trajectories=(view_from_row(line),)))
    assert text(browser, ".facts .question") == HOSTILE
    assert any(HOSTILE in part for part in texts(browser, ".part"))
    assert browser.execute_script("return document.images.length") == 0
    for key in ("t", "t", "t"):
        press(browser, key)
        wait(browser, "return document.querySelector('.detail .tokens .t') !== null")
    # A script that something puts into the page does not run, and nothing is fetched.
    browser.execute_script("document.body.insertAdjacentHTML('beforeend', arguments[0])", HOSTILE)
    browser.execute_script(
        "const a = document.createElement('div'); a.setAttribute('onclick', \"document.title='owned'\"); document.body.append(a); a.click()"
    )
    assert browser.title == HOSTILE
    assert any("Content Security Policy" in message for message in errors(browser))


def test_filters_sorting_and_choices_work_together(browser, opened):
    records = tuple(many_records(60, tokens=30))
    opened(page.Report(title="e", variants=("base", "trained"), answers=records))
    wrong = [record for record in records if not record.is_correct and not record.is_lost]
    click(browser, "[data-flag=wrong]")
    assert text(browser, ".count") == f"{len(wrong)} of 60 answers"
    choose(browser, "[data-filter=variant]", "base")
    base = [record for record in wrong if record.policy == "base"]
    assert text(browser, ".count") == f"{len(base)} of 60 answers"
    choose(browser, "[data-sort]", "ms")
    times = [max(span.stop_ms for span in record.spans) for record in base]
    slowest = base[times.index(max(times))]
    click(browser, ".joined .icon")
    wait_for_text(browser, ".item", re.escape(slowest.question))
    assert len(texts(browser, ".item .timeline")) == len(texts(browser, ".item"))
    click(browser, "[data-flag=failed]")
    click(browser, "[data-flag=cut]")
    click(browser, "[data-flag=invalid]")
    wait_for_text(browser, ".count", "^0 of 60")
    assert text(browser, ".empty-list") == "No answer passes these filters."


def test_a_search_finds_text_in_every_chunk_and_marks_it(browser, opened, monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK_CHARACTERS", 3000)
    monkeypatch.setattr(chunks, "MAX_INSIDE", 0)
    special = make_record(question="The last one", parts=make_record().parts[:2], problem_id="last")
    opened(page.Report(title="e", answers=(*many_records(50, tokens=40), special)))
    press(browser, "/")
    press(browser, "The last one")
    wait_for_text(browser, ".count", "^1 of 51 answers$")
    browser.execute_script("document.activeElement.select()")
    press(browser, "PRINT(x)")
    with_code = sum(bool(record.calls) for record in many_records(50, tokens=40)) + 1
    wait_for_text(browser, ".count", f"^{with_code} of 51 answers$")
    wait(browser, "return document.querySelectorAll('mark').length > 0")
    assert set(texts(browser, "mark")) == {"print(x)"}
    assert browser.execute_script("return document.querySelector('mark').closest('details').open")
    choose(browser, "[aria-label='Where to search']", "tool")
    wait_for_text(browser, ".count", "^0 of 51")
    press(browser, "\ue00c")  # Escape leaves the field
    assert browser.execute_script("return document.activeElement.tagName") == "BODY"
    # What is filtered stays to be seen in the field.
    assert browser.execute_script("return document.querySelector('.search').value") == "PRINT(x)"


def test_keys_go_to_calls_groups_and_figures(browser, opened):
    opened(run_report())
    assert browser.execute_script("return document.querySelectorAll('.call[open]').length") == 0
    press(browser, "n")
    assert browser.execute_script("return document.querySelector('.call').open")
    press(browser, "j")
    wait_for_text(browser, ".bar .where", "^2 of 8")
    press(browser, "g")
    wait(browser, "return document.querySelectorAll('.column .part').length >= 4")
    assert len(texts(browser, ".column")) == 4  # samples of the question
    press(browser, "n")
    assert (
        browser.execute_script("return document.querySelectorAll('.columns .call[open]').length")
        == 1
    )
    press(browser, "g")
    wait(browser, "return document.querySelector('.columns') === null")
    press(browser, "t")
    wait(browser, "return document.querySelectorAll('.tokens .t').length === 300")
    assert len(texts(browser, ".t.control")) == 2
    press(browser, "n")
    assert browser.execute_script(
        "return document.querySelector('.t.here').classList.contains('code')"
    )
    press(browser, "t")
    press(browser, "t")
    wait(
        browser,
        "return document.querySelector('[data-mode=advantage]').getAttribute('aria-pressed') === 'true'",
    )
    assert browser.execute_script("return document.querySelectorAll('.t.shaded').length") > 100
    press(browser, "?")
    assert browser.execute_script("return document.querySelector('dialog').open")
    assert errors(browser) == []


def test_two_policies_stand_side_by_side_on_one_question(browser, opened):
    opened(page.Report(title="e", answers=tuple(many_records(40, tokens=30))))
    press(browser, "b")
    wait(browser, "return document.querySelectorAll('.columns.two .part').length >= 2")
    heads = texts(browser, ".column header")
    assert [head.split(" · ")[0] for head in heads] == ["base", "trained"]
    assert heads[0].split("sample")[1] == heads[1].split("sample")[1]


def test_a_link_opens_one_answer(browser, opened):
    opened(run_report(), "#a=grpo//0/p1/2")
    wait_for_text(browser, ".bar .where", "p1 · sample 2")
    link = browser.execute_script("return document.querySelector('.bar a').getAttribute('href')")
    assert link == "#a=grpo//0/p1/2"
    press(browser, "j")
    wait(browser, "return location.hash === '#a=grpo//0/p1/3'")


def test_labels_claim_only_what_is_known(browser, opened):
    lost = make_record(
        is_lost=True, is_correct=False, final_answer=None, finish_reason="infrastructure"
    )
    silent = (Part(author="policy", text="", tokens=256),)
    empty = make_record(sample=2, parts=silent, calls=(), final_answer=None, is_correct=False)
    opened(page.Report(title="e", answers=(lost, make_record(sample=1), empty)))
    assert "masked: lost to the infrastructure" in texts(browser, ".chips .chip")[0]
    press(browser, "j")
    wait_for_text(browser, ".bar .where", "^2 of 3")
    shown = " ".join(texts(browser, ".chips .chip"))
    assert "right" in shown
    for name in ("reward", "advantage", "step", "r_tool"):
        assert name not in shown
    assert text(browser, ".answers code.good") == "42"
    assert browser.execute_script("return document.querySelector('.modes')") is None
    press(browser, "j")
    wait_for_text(browser, ".detail .part", "^.256 tokens without text.$")
    assert text(browser, ".answers code.bad") == "(none)"


def test_a_page_whose_folder_is_gone_says_so(browser, opened, monkeypatch, tmp_path):
    monkeypatch.setattr(chunks, "MAX_INSIDE", 0)
    path = opened(run_report())
    shutil.rmtree(tmp_path / "report_data")
    browser.get("about:blank")
    browser.get(path.as_uri())
    wait_for_text(
        browser, "[role=alert]", "cannot be read: keep the folder report_data beside this page"
    )


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_text_on_the_page_has_contrast(browser, opened, theme):
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        {"features": [{"name": "prefers-color-scheme", "value": theme}]},
    )
    lines = (*views(), view_from_row(two_call_line(is_masked=True, reward=None)))
    opened(run_report(trajectories=lines))
    browser.execute_script(
        "document.querySelectorAll('details').forEach((node) => { node.open = true })"
    )
    for keys in ("", "t", "t", "t", "g"):
        if keys:
            press(browser, keys)
            wait(browser, SHOWN)
        seen, poor = browser.execute_script(POOR_TEXT)
        assert seen > 50
        assert poor == []
    press(browser, "g")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_on_a_phone_nothing_is_wider_than_the_screen(browser, opened):
    phone = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    try:
        opened(run_report())
        assert browser.execute_script("return document.documentElement.scrollWidth") == 390
        press(browser, "g")
        wait(browser, "return document.querySelectorAll('.column .part').length >= 4")
        assert browser.execute_script("return document.documentElement.scrollWidth") == 390
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_a_print_has_the_answer_with_its_calls_and_no_controls(browser, opened):
    opened(run_report())
    browser.execute_script("window.dispatchEvent(new Event('beforeprint'))")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        hidden = "return getComputedStyle(document.querySelector(arguments[0])).display"
        for selector in (".nav", ".controls", ".list"):
            assert browser.execute_script(hidden, selector) == "none"
        assert browser.execute_script(
            "return [...document.querySelectorAll('.call')].every((node) => node.open)"
        )
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
