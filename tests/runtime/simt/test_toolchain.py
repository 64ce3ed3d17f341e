"""Where there is no g++; what is kept in the cache, and that it is kept whole."""

import os
import re
import shutil
import stat
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from runtime import simt
from runtime.cli import main
from runtime.simt import SimtUnavailable, toolchain

TEXT = 'extern "C" __global__ void k(int *y) { *y = VALUE; }'
WITH_GXX = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")


def test_without_a_compiler_the_message_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SimtUnavailable, match=r"needs g\+\+ 11 or newer, and none is on PATH.*apt-get install g\+\+"):
        simt.launch(TEXT, "k", 1, 1, [np.zeros(1, "i")], defines={"VALUE": 1})
    file = tmp_path / "k.cu"
    file.write_text(TEXT)
    ran = CliRunner().invoke(main, ["simt", str(file), "int32[1]"])
    assert ran.exit_code == 2
    assert "needs g++ 11 or newer" in ran.stderr


def test_another_machine_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchain.platform, "machine", lambda: "aarch64")
    with pytest.raises(SimtUnavailable, match="on the CPU of x86-64 Linux only; this is aarch64 with linux"):
        toolchain.compiler()


@WITH_GXX
def test_a_program_is_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    y = np.zeros(1, "i")
    simt.launch(TEXT, "k", 1, 1, [y], defines={"VALUE": 41})
    monkeypatch.setattr(toolchain, "run", lambda *_, **__: pytest.fail("it was compiled again"))
    y[0] = 0
    simt.launch(TEXT, "k", 1, 1, [y], defines={"VALUE": 41})
    assert y[0] == 41


@WITH_GXX
def test_other_defines_are_another_program() -> None:
    y = np.zeros(1, "i")
    for value in (1, 2):
        simt.launch(TEXT, "k", 1, 1, [y], defines={"VALUE": value})
        assert y[0] == value


@WITH_GXX
def test_an_interrupted_build_leaves_nothing() -> None:
    before = {entry.name for entry in toolchain.folder().iterdir()}

    def make(at: Path) -> None:
        (at / "half").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        toolchain.kept("interrupted", make)
    assert {entry.name for entry in toolchain.folder().iterdir()} == before


@WITH_GXX
def test_without_a_cache_it_works_all_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("no folder can be made here")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    made: list[Path] = []
    entry = toolchain.kept("anything", made.append)
    assert entry.is_dir()
    assert made == [entry]
    assert toolchain.kept("anything", made.append) == entry
    assert len(made) == 1


@WITH_GXX
def test_the_cache_is_the_users_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "new"))
    entry = toolchain.kept("anything", lambda _: None)
    assert stat.S_IMODE(entry.parent.stat().st_mode) == 0o700


@WITH_GXX
def test_the_cache_does_not_grow_for_ever(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(toolchain, "KEPT", 10)
    for k in range(10):
        os.utime(toolchain.kept(f"entry-{k}", lambda _: None), (k, k))
    toolchain.kept("entry-0", lambda _: None)  # used again
    toolchain.kept("another", lambda _: None)
    assert {entry.name for entry in toolchain.folder().iterdir()} == {
        "entry-0", "another", *(f"entry-{k}" for k in range(2, 10)),
    }  # fmt: skip


@WITH_GXX
def test_a_program_outlives_the_cache() -> None:
    y = np.zeros(1, "i")
    program = simt.compile(TEXT, defines={"VALUE": 77})
    program.launch("k", 1, 1, [y])
    shutil.rmtree(program._common().path.parent)
    y[0] = 0
    program.launch("k", 1, 1, [y])
    assert y[0] == 77


def test_both_texts_of_the_wrappers_define_the_same_names() -> None:
    """Those for the executor, and the inline PTX that a kernel carries along for a GPU."""

    def names(file: str) -> set[str]:
        text = (toolchain.INCLUDE / file).read_text()
        wanted = r"certiconv_(?:mma_m|ldmatrix_x|to_tf32|cp_async)\w*"
        found = set(re.findall(rf"\b({wanted})\(", text)) | set(re.findall(rf"CERTICONV_MMA_16\(({wanted})", text))
        for name in set(re.findall(r"(certiconv_ldmatrix_x\d)##suffix", text)):
            found |= {name, f"{name}_trans"}
        return found

    ours = names("certiconv/wrappers.h")
    assert len(ours) == 15
    assert names("certiconv_ptx.cuh") == ours
