"""What is passed on: weights or images with their card, nothing private; the hub is a server on this machine."""

import dataclasses
import http.server
import json
import threading

import numpy as np
import pyarrow.parquet as pq
import pytest

from diffpath_jax import cli
from diffpath_jax.data import marking
from diffpath_jax.data.manifest import open_dataset
from diffpath_jax.evaluation import record
from diffpath_jax.exchange import hub, scorecard
from diffpath_jax.io.errors import ExitCode
from diffpath_jax.weights import safetensors_file

CRITERIA = ("congruence", "coverage", "constraint", "completeness", "compliance", "comprehension", "consistency")


def publish(*words):
    return cli.main(["publish", *map(str, words)])


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory, dataset, samples, resnet_run):
    folder = tmp_path_factory.mktemp("evaluated")
    words = ["eval", "--real", dataset, "--generated", samples, "--features", resnet_run, "--out", folder / "eval"]
    words += ["--cache", folder / "cache", "--resamples", 0]
    assert cli.main([str(word) for word in words]) == 0
    return folder / "eval"


@pytest.fixture
def alarming(tmp_path, evaluation):
    """The same evaluation with an audit that found copies."""
    measured = record.read(evaluation / record.METRICS)
    copies = dataclasses.replace(measured.audit.copies, copying=True, verdict="7 of 24 images are copies")
    measured = dataclasses.replace(measured, audit=dataclasses.replace(measured.audit, copies=copies))
    (tmp_path / "alarming").mkdir()
    record.write(tmp_path / "alarming" / record.METRICS, measured)
    return tmp_path / "alarming"


def rows_of(card):
    cells = [line.strip("| ").split(" | ") for line in card.splitlines() if line.startswith("| ")]
    return {cell[0]: cell[2] for cell in cells if cell[0] in CRITERIA}


def test_a_set_goes_out_with_its_card_and_nothing_private(tmp_path, samples, evaluation):
    assert publish(samples, "--to", tmp_path / "out", "--license", "CC-BY-4.0", "--evals", evaluation) == 0
    files = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert files == ["README.md", "data/train-00000-of-00001.parquet"]
    table = pq.read_table(tmp_path / "out" / "data" / "train-00000-of-00001.parquet")
    assert set(table[marking.COLUMN].to_pylist()) == {marking.SOURCE_TYPE} and len(table) == 24
    card = (tmp_path / "out" / "README.md").read_text()
    assert 'license: "cc-by-4.0"' in card.split("---\n")[1]
    found, measured = rows_of(card), record.read(evaluation / record.METRICS)
    assert tuple(found) == CRITERIA
    distances = measured.distances[0].rows[record.MEASURED][record.OVERALL].metrics
    name = next(name for name in distances if name.startswith("FD"))
    assert f"{name} {distances[name].value:.4g}" in found["congruence"] and "recall" in found["coverage"]
    assert "eosin_shift" in found["constraint"]
    assert measured.audit.copies.verdict in found["compliance"] and measured.audit.copies.verdict in card
    assert found["consistency"] == scorecard.NOT_MEASURED


def test_real_sets_leave_private_and_qa_behind(tmp_path, dataset):
    names = {path.name for path in dataset.iterdir()}
    assert {"private", "qa"} <= names
    assert publish(dataset, "--to", tmp_path / "out", "--license", "cc0-1.0") == 0
    out = [path for path in (tmp_path / "out").rglob("*")]
    assert not any(path.name in ("private", "qa") for path in out)
    text = b"".join(path.read_bytes() for path in out if path.is_file())
    assert b"one.svs" not in text and b"hash.key" not in text
    card = rows_of((tmp_path / "out" / "README.md").read_text())
    assert card["congruence"] == card["coverage"] == card["consistency"] == scorecard.NOT_MEASURED
    assert f"audit: {scorecard.NOT_MEASURED}" in card["compliance"]


def test_copies_are_refused(tmp_path, samples, alarming, capsys):
    words = (samples, "--to", tmp_path / "out", "--license", "cc0-1.0", "--evals", alarming)
    assert publish(*words) == ExitCode.REFUSED
    assert "7 of 24 images are copies" in capsys.readouterr().err and not (tmp_path / "out").exists()
    assert publish(*words, "--despite_copies") == 0
    assert "7 of 24 images are copies" in (tmp_path / "out" / "README.md").read_text()


def test_evaluations_of_something_else_are_refused(tmp_path, dataset, evaluation, capsys):
    words = (dataset, "--to", tmp_path / "out", "--license", "cc0-1.0", "--evals", evaluation)
    assert publish(*words) == ExitCode.REFUSED
    assert "not those of this set" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_weights_go_out_with_their_card(tmp_path, denoiser_run, evaluation):
    assert publish(denoiser_run, "--to", tmp_path / "out", "--license", "apache-2.0", "--evals", evaluation) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["README.md", "model.safetensors"]
    _, about = safetensors_file.read_parameters(tmp_path / "out" / "model.safetensors")
    assert about["classes"] == ["pink", "purple"]
    assert tuple(rows_of((tmp_path / "out" / "README.md").read_text())) == CRITERIA


def test_consistency_is_the_range_over_evaluations(evaluation):
    measured = record.read(evaluation / record.METRICS)
    found = rows_of("\n".join(scorecard.lines(scorecard.Facts((measured, measured), (), (), ()))))
    assert "over 2 evaluations" in found["consistency"] and found["completeness"] == scorecard.NOT_MEASURED


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--license", "cc0-1.0", "--to", "hf://no-owner"], "no OWNER/NAME"),
        (["--license", "no licence!", "--to", "out"], "names no licence"),
        (["--to", "out"], "--license"),
    ],
)
def test_what_is_asked_for(tmp_path, monkeypatch, samples, capsys, words, why):
    monkeypatch.chdir(tmp_path)
    assert publish(samples, *words) == 2
    assert why in capsys.readouterr().err and not list(tmp_path.iterdir())


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the hub as an upload of small files asks for."""

    def log_message(self, *words):
        pass

    def do_GET(self):
        self._answer({"siblings": [], "id": "me/set", "sha": "0" * 40})

    def do_HEAD(self):
        self._answer({})

    def do_POST(self):
        length = self.headers.get("Content-Length")
        body = self.rfile.read(int(length)) if length else self._chunks()
        self.server.seen.append((self.path, body))
        if self.path.endswith("/repos/create"):
            return self._answer({"url": f"{self.server.url}/datasets/me/set", "id": "me/set", "name": "me/set"})
        if "/preupload/" in self.path:
            files = [{"path": f["path"], "uploadMode": "regular"} for f in json.loads(body)["files"]]
            return self._answer({"files": [{**f, "shouldIgnore": False, "oid": None} for f in files]})
        url = f"{self.server.url}/datasets/me/set/commit/{'a' * 40}"
        return self._answer({"commitUrl": url, "commitOid": "a" * 40, "hookOutput": "", "success": True})

    def _chunks(self):
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _answer(self, content):
        data = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as running:
        running.seen, running.url = [], f"http://127.0.0.1:{running.server_port}"
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


def test_the_hub_gets_the_same_files(tmp_path, samples, server, monkeypatch, capsys):
    huggingface_hub = pytest.importorskip("huggingface_hub")
    api = huggingface_hub.HfApi(endpoint=server.url, token="hf_none")
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: api)
    assert publish(samples, "--to", "hf://me/set", "--license", "cc-by-4.0") == 0
    created = json.loads(server.seen[0][1])
    assert created["type"] == "dataset" and (created.get("private") or created.get("visibility") == "private")
    commit = [json.loads(line) for line in server.seen[-1][1].splitlines()]
    paths = {line["value"]["path"] for line in commit if line["key"] == "file"}
    assert paths == {"README.md", "data/train-00000-of-00001.parquet"}
    assert "commit/aaaa" in capsys.readouterr().err
    assert np.all([record.index >= 0 for record in open_dataset(samples).read("train")])


def test_a_hub_that_is_not_there_is_one_line(samples, monkeypatch, capsys):
    huggingface_hub = pytest.importorskip("huggingface_hub")
    api = huggingface_hub.HfApi(endpoint="http://127.0.0.1:9", token="hf_none")
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: api)
    assert publish(samples, "--to", "hf://me/set", "--license", "cc-by-4.0") == ExitCode.SYSTEM
    assert capsys.readouterr().err.count("error: repository in me/set") == 1


def test_without_the_client_the_extra_is_named(samples, monkeypatch, capsys):
    import sys

    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert publish(samples, "--to", f"{hub.PREFIX}me/set", "--license", "cc-by-4.0") == 2
    assert "pip install 'diffpath[hub]'" in capsys.readouterr().err
