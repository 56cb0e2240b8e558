"""Every check of the machine finds what is planted in a good one; a good one is silent; this one can be read."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from m3tune.diagnose.doctor import environment
from m3tune.diagnose.doctor.clashes import CLASHES, Clash, known_clashes, unmet
from m3tune.diagnose.doctor.environment import EXTRAS, Device, Machine, Place, look, place_of
from m3tune.diagnose.doctor.machine_rules import MACHINE_RULES, machine_findings

GUIDE = Path(__file__).parents[2] / "docs/guide/doctor.md"
GOOD = Machine(
    python="3.12.4",
    versions={"m3tune": "0.1.0", "torch": "2.13.0", "transformers": "5.20.0", **dict.fromkeys(EXTRAS, "1.0")},
    requires={"m3tune": ("torch>=2.10", "transformers>=5")},
    torch_cuda="13.0",
    driver="580.65",
    devices=(Device("A card", 79.2, True),),
    bfloat16_speedup=None,
    cores=16,
    threads=16,
    ram_gib=128.0,
    free_ram_gib=100.0,
    places={"work": Place("/home/me/work", True, True, 300.0), "cache": Place("/home/me/.cache", True, True, 300.0)},
    cached_models=3,
)
BARE = replace(GOOD, driver=None, devices=(), torch_cuda=None, bfloat16_speedup=4.0)


def place(name, **changes):
    return replace(GOOD, places={**GOOD.places, name: replace(GOOD.places[name], **changes)})


ILL = {
    "old-python": replace(GOOD, python="3.9.19"),
    "unmet-requirements": replace(GOOD, versions={**GOOD.versions, "transformers": "4.57.1"}),
    "clashing-versions": replace(GOOD, versions={**GOOD.versions, "flagembedding": "1.3.5"}),
    "cuda-mismatch": replace(GOOD, devices=()),
    "no-permission": place("work", writable=False),
    "awkward-path": place("work", path="/home/me/my work"),
    "text-encoding": replace(GOOD, encoding="cp936"),
    "low-disk": place("cache", free_gib=3.0),
    "low-memory": replace(GOOD, free_ram_gib=2.0),
    "small-device": replace(GOOD, devices=(Device("A small card", 5.8, True),)),
    "offline-without-cache": replace(GOOD, variables={"HF_HUB_OFFLINE": "1"}, cached_models=0),
    "wrong-threads": replace(GOOD, threads=64),
    "no-accelerator": BARE,
    "slow-bfloat16": replace(GOOD, devices=(Device("An old card", 79.2, False),)),
    "missing-extras": replace(GOOD, versions={k: v for k, v in GOOD.versions.items() if k != "peft"}),
}


def codes(machine):
    return [finding.code for finding in machine_findings(machine)]


def test_every_check_is_tested_here_and_explained_in_the_guide():
    assert set(ILL) == set(MACHINE_RULES)
    headings = re.findall(r"^### ([\w-]+)$", GUIDE.read_text(encoding="utf-8"), re.MULTILINE)
    assert headings == list(MACHINE_RULES)


def test_a_good_machine_is_silent():
    assert codes(GOOD) == []


@pytest.mark.parametrize("code", ILL)
def test_what_is_wrong_with_a_machine_is_found_and_nothing_else(code):
    (finding,) = machine_findings(ILL[code])
    assert finding.code == code
    assert finding.fix
    assert finding.evidence["count"] > 0


def test_a_torch_without_cuda_beside_a_driver_is_told_from_a_driver_that_is_too_old():
    (finding,) = machine_findings(replace(GOOD, devices=(), torch_cuda=None))
    assert "built without CUDA" in finding.what
    (finding,) = machine_findings(replace(GOOD, devices=()))
    assert "CUDA 13.0" in finding.what
    assert "580.65" in finding.what


@pytest.mark.parametrize(
    ("speedup", "expected"), [(4.0, ["no-accelerator"]), (0.1, ["no-accelerator", "slow-bfloat16"])]
)
def test_bfloat16_on_the_cpu_is_judged_by_its_measured_speed(speedup, expected):
    assert codes(replace(BARE, bfloat16_speedup=speedup)) == expected


def test_memory_is_judged_by_what_does_the_work():
    assert codes(replace(GOOD, free_ram_gib=6.0)) == []
    assert codes(replace(BARE, free_ram_gib=6.0)) == ["low-memory", "no-accelerator"]
    assert codes(replace(GOOD, ram_gib=None, free_ram_gib=None)) == []


def test_a_path_that_is_no_utf8_is_an_error():
    (finding,) = machine_findings(place("work", path="/home/me/caf\udce9"))
    assert finding.severity == "error"
    finding.where.encode("utf-8")


def test_few_threads_are_a_note_that_names_the_variable():
    few = replace(BARE, threads=2, variables={"OMP_NUM_THREADS": "2"})
    (finding,) = [f for f in machine_findings(few) if f.code == "wrong-threads"]
    assert finding.severity == "note"
    assert "OMP_NUM_THREADS=2" in finding.what


@pytest.mark.parametrize("value", ["1", "true", "ON", "yes"])
def test_offline_mode_is_read_as_huggingface_reads_it(value):
    assert replace(GOOD, variables={"HF_HUB_OFFLINE": value}).is_offline
    assert not replace(GOOD, variables={"HF_HUB_OFFLINE": "0"}).is_offline


# --- versions


def test_a_requirement_is_unmet_only_where_it_applies():
    requires = {
        "a": ("b<2,>=1", "c>=1; extra == 'more'", "d>=9; sys_platform == 'nowhere'", "not a requirement!", "E_f>=2")
    }
    assert list(unmet({"b": "1.5", "c": "0.1", "d": "1", "e-f": "2.1"}, requires)) == []
    assert list(unmet({"b": "2.0", "e-f": "1.0"}, requires)) == [("a", "b<2,>=1", "2.0"), ("a", "E_f>=2", "1.0")]


def test_a_clash_needs_both_packages_within_their_ranges():
    table = [Clash("a", "<2", "b", ">=5", "warning", "why", "fix")]
    for versions, clashes in (
        ({"a": "1.9", "b": "5.1"}, True),
        ({"a": "2.0", "b": "5.1"}, False),
        ({"a": "1.9", "b": "4.9"}, False),
        ({"a": "1.9"}, False),
    ):
        assert bool(list(known_clashes(versions, table))) == clashes


def test_the_table_of_clashes_says_what_to_do():
    assert all(clash.why and clash.fix and clash.severity in ("error", "warning", "note") for clash in CLASHES)


# --- this machine


def test_this_machine_can_be_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    machine = look()
    assert machine.places["work"].path == str(tmp_path)
    assert machine.places["work"].writable
    assert machine.cores >= 1
    assert {"torch", "transformers"} <= set(machine.versions)
    assert any(line.startswith("torch>=") for line in machine.requires.get("m3tune", ("torch>=0",)))
    json.dumps(machine.as_json())
    assert len(list(machine.in_words())) >= 5


def test_a_folder_that_is_not_there_is_judged_by_the_nearest_that_is(tmp_path):
    missing = place_of(tmp_path / "not" / "there")
    assert not missing.exists
    assert missing.writable
    assert missing.free_gib == pytest.approx(place_of(tmp_path).free_gib, rel=0.1)


def test_a_container_with_less_than_the_machine_is_believed(tmp_path, monkeypatch):
    (tmp_path / "memory.max").write_text(f"{2**30}\n")
    (tmp_path / "cpu.max").write_text("100000 100000\n")
    monkeypatch.setattr(environment, "_MEMORY_LIMIT", tmp_path / "memory.max")
    monkeypatch.setattr(environment, "_CPU_LIMIT", tmp_path / "cpu.max")
    machine = look()
    assert machine.cores == 1
    assert machine.ram_gib == 1
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert look().cores >= 1


def test_a_driver_is_read_from_its_own_words(tmp_path, monkeypatch):
    version = tmp_path / "version"
    version.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  Sun Jul 27 07:07:31 UTC 2025\n")
    monkeypatch.setattr(environment, "_DRIVER", version)
    assert look().driver == "580.65.06"


def test_the_command_alone_describes_the_machine(m3tune, monkeypatch):
    monkeypatch.setattr(environment, "look", lambda: ILL["low-disk"])
    code, out, _ = m3tune("doctor")
    assert code == 1
    assert "device A card" in out
    assert "docs/guide/doctor.md#low-disk" in out
    code, out, _ = m3tune("doctor", "--json")
    assert json.loads(out)["findings"][0]["code"] == "low-disk"
    monkeypatch.setattr(environment, "look", lambda: GOOD)
    assert m3tune("doctor")[0] == 0
    assert m3tune("doctor", "--vectors", "somewhere")[0] == 2
