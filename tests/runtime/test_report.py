"""The report is one well-formed page that needs nothing else, says every part, and never leaves half a file.

The page is read back with the standard library's HTML parser, formulas as XML, pictures by decoding their addresses.
The sample is small but has every kind of content; hostile texts stand in for what a user or a derivation may supply.
"""

import hashlib
import html
import itertools
import math
import os
import re
import struct
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest

from runtime import report
from runtime.report import (
    ALL_SIZES,
    CertificateRow,
    EmittedModule,
    Evaluation,
    ExactExecution,
    KernelPicture,
    Milestone,
    Phase,
    ReportContent,
    TheoremCard,
    TrainingHistory,
    Trusted,
    WeightPicture,
    highlight,
    render_report,
    write_report,
)
from tests.runtime.report_sample import EMITTED, EPOCHS, Page, contrast, pictures, sample, wave

ROOT = Path(__file__).resolve().parents[2]
HOSTILE = "<script>alert(1)</script> & \"quotes\" 'too' {{ 7 * 7 }}"


@pytest.fixture(scope="module")
def content() -> ReportContent:
    return sample()


@pytest.fixture(scope="module")
def empty(content: ReportContent) -> ReportContent:
    """A run of which nothing can be told but that it began."""
    return replace(
        content,
        **dict.fromkeys(
            ["phases", "milestones", "weight_pictures", "theorems", "modules", "executions", "certificate"], ()
        ),
        **dict.fromkeys(["settings", "kernels", "trusted", "versions", "reproduction_notes"], ()),
        history=TrainingHistory(EPOCHS, interrupted=True),
        evaluation=None,
    )


@pytest.fixture(scope="module")
def page(content: ReportContent) -> str:
    return render_report(content)


# --- The page as a document -------------------------------------------------------------------------------------------


def test_the_page_is_well_formed_and_its_links_lead_somewhere(page: str) -> None:
    read = Page(page)
    names = [attrs["id"] for _, attrs in read.tags if "id" in attrs]
    assert len(set(names)) == len(names)
    links = [attrs["href"] or "" for attrs in read.every("a")]
    assert links
    assert {link.removeprefix("#") for link in links} <= set(names)
    assert {attrs["aria-labelledby"] for _, attrs in read.tags if "aria-labelledby" in attrs} <= set(names)


def test_formulas_are_xml(page: str) -> None:
    formulas = re.findall(r"<math.*?</math>", page, flags=re.DOTALL)
    assert len(formulas) == 6
    assert {ET.fromstring(formula).tag for formula in formulas} == {"{http://www.w3.org/1998/Math/MathML}math"}


def test_the_page_refers_to_nothing_outside_and_runs_nothing(page: str) -> None:
    read = Page(page)
    addresses = set(re.findall(r"https?://[^\s\"'<]+", page))
    assert addresses <= {"http://www.w3.org/1998/Math/MathML"}
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & {tag for tag, _ in read.tags}
    for tag, attrs in read.tags:
        assert not [name for name in attrs if name.startswith("on")]
        for name in ("src", "href", "srcset", "data"):
            assert str(attrs.get(name) or "#").startswith(("#", "data:image/")), (tag, attrs)
    assert not re.search(r"url\(|@import", page)
    (policy,) = (a["content"] for a in read.every("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_pictures_are_whole_and_hold_no_date_version_or_address(page: str) -> None:
    found = pictures(page)
    assert len(found) == len(Page(page).every("img")) == 10
    for kind, content in found:
        if kind == "image/svg+xml":
            assert ET.fromstring(content).tag == "{http://www.w3.org/2000/svg}svg"
            outside = set(re.findall(rb"https?://[^\"']+", content)) - {
                b"http://www.w3.org/Graphics/SVG/1.1/DTD/svg11.dtd"
            }
            assert all(
                address.startswith((b"http://www.w3.org/", b"http://creativecommons.org/")) for address in outside
            )
            assert b"dc:date" not in content
        else:
            assert kind == "image/png"
            assert content.startswith(b"\x89PNG\r\n\x1a\n")
            assert content.endswith(struct.pack(">I", 0) + b"IEND\xaeB`\x82")
            assert b"tEXt" not in content
        assert b"Matplotlib v" not in content
    assert not re.search(r"\b20[0-9]{2}-[01][0-9]-[0-3][0-9]\b", page)


def test_every_picture_is_told_in_words(page: str) -> None:
    alts = [str(attrs["alt"]) for attrs in Page(page).every("img")]
    size = "weight matrix of 16 rows and 16 columns"
    assert alts[:4] == [
        f"Dense: {size}; 256 entries hold 256 different parameters, 0 entries are zero.",
        f"After translation invariance: {size}; 256 entries hold 49 different parameters, 0 entries are zero.",
        f"After locality: {size}; 100 entries hold 9 different parameters, 156 entries are zero.",
        "Loss by epoch: from 2.34 after epoch 1 to 0.08548 after epoch 12.",
    ]
    assert "A handwritten 8 that was taken for a 3." in alts
    assert all(len(alt) > 20 for alt in alts)


def test_headings_descend_one_level_at_a_time(page: str) -> None:
    levels = [int(tag[1]) for tag, _ in Page(page).tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_letters_stand_out_from_their_ground(page: str) -> None:
    variables = dict(re.findall(r"--(\w+): (#\w{6})", page))
    grounds = [variables["wash"], "#ffffff"]
    letters = [colour for name, colour in variables.items() if name in ("ink", "soft", "accent")]
    letters += re.findall(r"[^-]color: (#\w{6})", page)
    assert len(letters) > 10
    assert min(contrast(letter, ground) for letter in letters for ground in grounds) >= 4.5


# --- What it says -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "title",
    [
        "Summary",
        "Contents",
        "How a dense layer becomes a convolution",
        "Theorems",
        "The plan and the emitted code",
        "Certificate",
        "Training",
        "What is trusted",
        "How to reproduce",
    ],
)
def test_every_section_is_there_even_when_there_is_nothing_to_tell(page: str, empty: ReportContent, title: str) -> None:
    for text in (page, render_report(empty)):
        assert len(re.findall(rf'<h2 id="[a-z]+-title">{title}</h2>', text)) == 1


def test_the_summary_gives_the_key_figures_and_how_each_is_known(page: str) -> None:
    (lead,) = re.findall(r'<p class="lead">(.*?)</p>', page, flags=re.DOTALL)
    assert " ".join(Page(lead).text.split()) == (
        "A convolutional network was derived from a dense layer, emitted as a program, checked, and trained on "
        "1,437 images. It names 358 of 360 held-out images right "
        "( 99.4 % , measured with the parameters that the run ended with). "
        "Of 3 theorems, 2 are proved for all sizes, 1 is proved at this shape. "
        "The emitted text was executed in exact arithmetic on 160 cases: forward on 120 of 1,200, gradients on 40. "
        "The run took 52.0 s: derive 6.21 s, emit 0.840 s, train 45.0 s."
    )


def test_the_content_reaches_the_reader(content: ReportContent, page: str) -> None:
    text = Page(page).text
    for said in [
        *(m.prose for m in content.milestones),
        *(m.condition for m in content.milestones),
        *(card.theory for card in content.theorems),
        *(row.method for row in content.certificate),
        *(row.error_probability for row in content.certificate),
        *(item.why for item in content.trusted),
        content.data_source,
        content.command,
        "3,996,002",
        "3 conditions by Z3",
        "reindex",
    ]:
        assert said in text
    assert hashlib.sha256(EMITTED.encode()).hexdigest() in text


def test_nothing_claims_more_than_was_done(page: str, empty: ReportContent) -> None:
    for text in (page, render_report(empty)):
        assert not re.search("replay|independent", text, flags=re.IGNORECASE)


@pytest.mark.parametrize(
    ("part", "whole", "told"),
    [(360, 360, "100.0 %"), (359, 360, "99.7 %"), (9999, 10000, "99.99 %"), (1999, 2000, "99.95 %"), (0, 0, "none")],
)
def test_only_all_of_them_are_a_hundred_per_cent(empty: ReportContent, part: int, whole: int, told: str) -> None:
    counts = [[part, whole - part], [0, 0]]
    told = told.replace(" %", "\N{NO-BREAK SPACE}%")
    assert f'<dd class="figure">{told}</dd>' in render_report(replace(empty, evaluation=Evaluation(counts)))


# --- Runs that ended early --------------------------------------------------------------------------------------------


def test_a_run_interrupted_before_its_first_epoch_is_told(empty: ReportContent) -> None:
    text = Page(render_report(empty)).text
    assert "Training was interrupted after 0 of 12 epochs." in text
    assert "the initial parameters, for no epoch ended" in text
    assert "No epoch was completed, so there are no curves." in text
    assert "Its accuracy on held-out images was not measured in this run." in text


@pytest.mark.parametrize("epochs", [1, 5])
def test_a_run_interrupted_later_is_told_with_its_curves(content: ReportContent, epochs: int) -> None:
    cut = [(name, values[:epochs]) for name, values in content.history.accuracy]
    history = TrainingHistory(EPOCHS, content.history.loss[:epochs], cut, interrupted=True)
    text = render_report(replace(content, history=history))
    assert f"after {epochs} of 12 epochs" in Page(text).text
    assert f"the parameters at the end of epoch {epochs}" in Page(text).text
    assert len(pictures(text)) == 10


def test_training_that_diverged_still_has_a_report(content: ReportContent) -> None:
    history = TrainingHistory(3, [2.3, math.inf, math.nan], [("training images", [0.1, math.nan, math.nan])])
    lost = [[wave(1)], [[[math.nan] * 5] * 5]]
    kernels = [KernelPicture("Lost", "", lost), KernelPicture("Zero", "", [[[[0.0]]]])]
    text = render_report(replace(content, history=history, kernels=kernels))
    Page(text)
    assert len(pictures(text)) == 10


# --- Escapes ----------------------------------------------------------------------------------------------------------


def test_every_text_is_escaped(content: ReportContent) -> None:
    h = HOSTILE
    hostile = replace(
        content,
        title=h,
        data_source=h,
        phases=[Phase(h, 1.0, h)],
        milestones=[Milestone(h, h, "<math></math>", h, h, h, [(h, h)])],
        weight_pictures=[WeightPicture(h, h, [[1, 0]], [(1, h)])],
        theorems=[TheoremCard(h, ALL_SIZES, h, [h], "<math></math>", "<ol></ol>", h, h)],
        modules=[EmittedModule(h, f"x = 1  # {h}\ny = {h!r}\n", h, h), EmittedModule(h, h)],
        executions=[ExactExecution(h, 1)],
        certificate=[CertificateRow(h, h, h, h, h)],
        settings=[(h, h)],
        history=TrainingHistory(1, [1.0], [("<b>", [0.5])]),
        kernels=[KernelPicture(h, h, [[[[1.0]]]])],
        trusted=[Trusted(h, h)],
        command=h,
        versions=[(h, h)],
        reproduction_notes=[h],
    )
    text = render_report(hostile)
    read = Page(text)
    assert "script" not in {tag for tag, _ in read.tags}
    assert "<b>" not in text
    assert "{{" in read.text  # braces of a template are text, too
    assert text.count(str(html.escape(h, quote=False).split(" ")[0])) > 40


# --- The emitted text -------------------------------------------------------------------------------------------------


def plain(marked: str) -> str:
    return html.unescape(re.sub(r"</?span[^>]*>", "", marked))


@pytest.mark.parametrize(
    "source",
    [
        EMITTED,
        EMITTED.rstrip("\n"),
        "",
        "x = '''a\n\n  b < c'''\n\n\n",
        "def f(\n",  # cut off
        "a = 'open\n",
        'extern "C" __global__ void f(float* x) { x[0] = 1.0f; }\n',
        "    if x:\n  y\n",
        'f"{a!r:>{width}} {f"{b}"}" + "ü"\n',
        Path(report.__file__).read_text(encoding="utf-8"),
    ],
)
def test_colours_change_no_character_and_number_every_line(source: str) -> None:
    marked = str(highlight(source))
    assert plain(marked) == source.removesuffix("\n")
    assert marked.count('<span class="line">') == source.removesuffix("\n").count("\n") + 1
    for line in marked.split("\n"):
        assert line.startswith('<span class="line">')
        Page(line)


def test_colours_follow_the_grammar_of_python() -> None:
    marked = str(highlight("def f(x):  # no\n    return 'def' + f'{x:2}' * 10\n"))
    assert marked == (
        '<span class="line"><span class="kw">def</span> <span class="def">f</span>(x):  '
        '<span class="com"># no</span></span>\n'
        '<span class="line">    <span class="kw">return</span> <span class="str">&#39;def&#39;</span> + '
        '<span class="str">f&#39;{x:2}&#39;</span> * <span class="num">10</span></span>'
    )


# --- The same content, the same bytes ---------------------------------------------------------------------------------


def test_the_same_content_gives_the_same_text(content: ReportContent, page: str) -> None:
    assert render_report(content) == page


def test_neither_hash_seed_nor_settings_of_matplotlib_change_a_picture(tmp_path: Path) -> None:
    program = (
        "import hashlib; from runtime import pictures as p\n"
        "made = [p.weight_matrix([[1, 2], [0, 1]], 1), p.curves({'a': [1, 2], 'b': [2, 1]}, 'loss'),\n"
        "        p.confusion_matrix([[3, 1], [0, 2]]), p.kernel_grid([[[[1, -1], [0, 2]]]]), p.digit([[0, 1]])]\n"
        "print(*(hashlib.sha256(picture.encode()).hexdigest() for picture in made))\n"
    )
    (tmp_path / "matplotlibrc").write_text("font.size: 30\nlines.linewidth: 9\nsavefig.dpi: 7\nsvg.fonttype: none\n")
    told = set()
    for seed, settings in (("1", {}), ("2", {"MATPLOTLIBRC": str(tmp_path), "MPLBACKEND": "svg"})):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT), **settings}
        ran = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
        )
        told.add(ran.stdout)
    assert len(told) == 1


def test_a_report_imports_no_window_and_matplotlib_only_when_written() -> None:
    program = (
        "import sys; from runtime import report; print('matplotlib' in sys.modules, 'jinja2' in sys.modules)\n"
        "import runtime.pictures; print('matplotlib.pyplot' in sys.modules)\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["False", "False", "False"]


def test_colours_tell_parameters_apart_and_letters_stay_readable() -> None:
    from runtime.pictures import INK, label_colour

    colours = [label_colour(label) for label in range(257)]
    assert colours[0] == "#ffffff"
    assert len(set(colours)) == 257
    assert min(contrast(INK, colour) for colour in colours) >= 4.5


# --- Written whole, or not at all -------------------------------------------------------------------------------------


def test_a_written_report_is_the_rendered_one(content: ReportContent, page: str, tmp_path: Path) -> None:
    write_report(content, tmp_path / "report.html")
    assert (tmp_path / "report.html").read_bytes() == page.encode("utf-8")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    empty: ReportContent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, failure: BaseException
) -> None:
    def fail(*arguments: object) -> None:
        raise failure

    target = tmp_path / "report.html"
    target.write_text("the old report")
    monkeypatch.setattr(*((os, "fsync") if call == "fsync" else (Path, "replace")), fail)
    with pytest.raises(type(failure)):
        write_report(empty, target)
    assert target.read_text() == "the old report"
    assert list(tmp_path.iterdir()) == [target]


def test_a_missing_folder_is_named(empty: ReportContent, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        write_report(empty, tmp_path / "nowhere" / "report.html")


# --- Content that contradicts itself ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: WeightPicture("t", "c", [[1, 2], [3]]), "labels: rows of lengths [1, 2]; expected one, at least 1"),
        (lambda: WeightPicture("t", "c", []), "labels: rows of lengths []; expected one, at least 1"),
        (
            lambda: WeightPicture("t", "c", [[1, -2]]),
            "labels: -2 is negative; a label is 0 (no parameter) or a positive integer",
        ),
        (lambda: Evaluation([[1, 2]]), "confusion: 1 rows and 2 columns; it must be square"),
        (lambda: TrainingHistory(1, [1.0, 2.0]), "loss: 2 epochs, but epochs_planned=1"),
        (
            lambda: TrainingHistory(2, [1.0, 2.0], [("held-out", [0.5])]),
            "accuracy of 'held-out': 1 values for 2 epochs of loss",
        ),
    ],
)
def test_contradictions_are_refused_with_their_numbers(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        make()
