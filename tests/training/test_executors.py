"""Threads, processes and clusters train to the same numbers, even if workers die."""

import errno
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from results_version import raise_results_version
from saboteur import Saboteur
from small_runs import MIXED, assert_all_the_same, config, fresh
from synthetic import synthetic_features

from lib.chapters.parameters import validate
from lib.chapters.shared.tuning import replicate, results_table, tune_methods
from lib.chapters.shared.verdicts import against
from lib.runs import Store, export_records
from lib.study.catalogue import load_catalogue
from lib.training import Lab, TrainingError, distribute, train, trainer
from lib.training.executors import Cluster, ExecutorError, Processes, check_executor, open_executor

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="module")
def serial(features, tmp_path_factory):
    store = fresh(tmp_path_factory.mktemp("serial"), "runs")
    return train(MIXED, store=store, features=features, device="cpu", executor="serial")


@pytest.fixture(scope="module")
def processes():
    """Two processes that all tests of this file share; spawning one takes seconds."""
    pool = Processes(2)
    yield pool
    pool.shutdown(wait=False, cancel_futures=True)


def marks(tmp_path):
    folder = tmp_path / "marks"
    folder.mkdir()
    return folder


def assert_a_loss_changes_nothing(serial, train_small, tmp_path, executor, lost):
    """Kill the worker of the stack with number ``lost``, once."""
    folder = marks(tmp_path)
    saboteur = Saboteur(executor, folder, lambda number, _: number == lost)
    assert_all_the_same(serial, train_small(MIXED, executor=saboteur))
    assert len(list(folder.iterdir())) == 1


class Immediate(Executor):
    """Does each call when it is submitted."""

    workers = 4

    def __init__(self):
        self.submitted = []

    def submit(self, fn, /, *args, **kwargs):
        self.submitted.append(args[1:3])
        future = Future()
        future.set_result(fn(*args, **kwargs))
        return future


def test_any_executor_gives_the_serial_numbers(serial, train_small):
    with ThreadPoolExecutor(2) as threads:
        assert_all_the_same(serial, train_small(MIXED, executor=threads))
        assert threads.submit(int).result() == 0  # the executor is left open


def test_processes_give_the_serial_numbers_though_one_dies(
    serial, train_small, tmp_path, processes
):
    assert_a_loss_changes_nothing(serial, train_small, tmp_path, processes, 3)


def test_runs_whose_worker_always_dies_are_named_and_the_others_kept(
    train_small, tmp_path, processes, monkeypatch
):
    # Each death costs seconds, in which a process imports torch again.
    monkeypatch.setattr(distribute, "RESUBMISSIONS", 1)
    victim, folder, store = config(seed=3), marks(tmp_path), fresh(tmp_path, "runs")
    configs = [config(seed=seed) for seed in range(6)]
    executor = Saboteur(processes, folder, lambda _, stack: victim in stack, again=True)
    with pytest.raises(TrainingError, match=r"went down with their workers.* fixed, seed 3") as e:
        train_small(configs, executor=executor)
    assert len(list(folder.iterdir())) == 1 + distribute.RESUBMISSIONS
    lost = [c for c in configs if f"seed {c.seed}" in str(e.value)]
    assert {c for c in configs if store.get(c)} == set(configs) - set(lost)
    assert len(lost) == 3  # those of one stack


class Failing(Executor):
    """Answers every call with the same error, or raises the error."""

    def __init__(self, error, refuses=False):
        self.error, self.refuses, self.calls = error, refuses, 0

    def submit(self, fn, /, *args, **kwargs):
        self.calls += 1
        if self.refuses:
            raise self.error
        future = Future()
        future.set_exception(self.error)
        return future


@pytest.mark.parametrize("refuses", [False, True])
def test_a_broken_executor_is_tried_a_bounded_number_of_times(train_small, refuses):
    executor = Failing(BrokenExecutor("gone"), refuses)
    with pytest.raises(TrainingError, match="2 of 2 runs went down"):
        train_small([config(seed=0), config(seed=1)], executor=executor)
    assert executor.calls % (1 + distribute.RESUBMISSIONS) == 0


def test_an_interruption_cancels_what_has_not_begun_and_keeps_what_is_done(
    serial, train_small, tmp_path, capsys
):
    class Interrupted(Executor):
        """Answers once, holds the next, and is interrupted at the third."""

        workers, held = 1, ()

        def submit(self, fn, /, *args, **kwargs):
            future = Future()
            if not self.held:
                future.set_result(fn(*args))
            elif len(self.held) == 2:
                raise KeyboardInterrupt
            self.held = (*self.held, future)
            return future

    executor, configs = Interrupted(), [c for c in MIXED if c.source is None]
    with pytest.raises(KeyboardInterrupt):
        train_small(configs, executor=executor)
    assert executor.held[1].cancelled()
    assert "the same call goes on from there" in capsys.readouterr().err
    assert 0 < len(fresh(tmp_path, "runs").records()) < len(configs)
    resumed = train_small(configs, executor="serial")
    assert_all_the_same(resumed, [serial[MIXED.index(config)] for config in configs])


def test_a_defect_in_a_worker_is_no_lost_worker(train_small):
    executor = Failing(MemoryError("a defect"))
    with pytest.raises(MemoryError, match="a defect"):
        train_small([config()], executor=executor)
    assert executor.calls == 1


def test_every_worker_gets_a_stack_and_only_the_replayed_runs_it_needs(train_small):
    executor, replays = Immediate(), [one for one in MIXED if one.source]
    train_small([config(seed=seed) for seed in range(8)], executor=executor)
    assert [(len(stack), sources) for stack, sources in executor.submitted] == [(2, {})] * 4
    train_small([one.source for one in replays], executor="serial")
    executor.submitted.clear()
    train_small(replays, executor=executor)
    sent = {c: set(sources) for stack, sources in executor.submitted for c in stack}
    assert sent == {one: {one.source} for one in replays}


def test_a_worker_with_other_code_or_without_the_data_refuses(features, tmp_path):
    payload = distribute.Payload(features, None, "cpu")
    with pytest.raises(TrainingError, match=r"has version .* install the same there"):
        distribute.train_elsewhere(payload, [config()], {}, "0+other")
    with pytest.raises(TrainingError, match="does not see"):
        distribute.train_elsewhere(tmp_path / "x", [config()], {}, distribute.code_version())


def test_the_environment_names_the_executor(train_small, monkeypatch):
    used, original = [], trainer.distribute
    monkeypatch.setattr(
        trainer, "distribute", lambda e, *rest: used.append(e) or original(e, *rest)
    )
    monkeypatch.setenv("STUDY_EXECUTOR", "threads:2")
    train_small([config()], "x")
    train_small([config()], "y", executor="serial")
    assert [type(executor) for executor in used] == [ThreadPoolExecutor]


@pytest.mark.parametrize(
    "name", ["process", "processes:0", "processes:x", "threads:-1", "dask", "dask://", "", "dask:/"]
)
def test_an_unknown_executor_is_refused(name):
    with pytest.raises(ExecutorError, match="write one of serial, processes"):
        check_executor(name)


@pytest.mark.parametrize(
    "name",
    ["serial", "processes", "threads:3", "dask://127.0.0.1:8786", "dask:///shared/scheduler.json"],
)
def test_a_known_executor_is_let_through(name):
    if name.startswith("dask"):
        pytest.importorskip("distributed")
    assert check_executor(name) == name


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    monkeypatch.setattr("lib.training.executors.find_spec", lambda name: None)
    with pytest.raises(ExecutorError, match=r"pip install 'variance-study\[cluster\]'"):
        check_executor("dask://127.0.0.1:8786")
    with pytest.raises(ExecutorError, match=r"pip install 'variance-study\[study\]'"):
        check_executor("processes")


def test_workers_end_with_a_killed_parent():
    code = (
        "from lib.training.executors import Processes\n"
        "import os, time\n"
        "pool = Processes(1)\n"
        "print(pool.submit(os.getpid).result(), flush=True)\n"
        "pool.submit(time.sleep, 120)\n"
        "time.sleep(120)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    worker = int(parent.stdout.readline())
    os.kill(worker, 0)
    parent.kill()
    parent.wait()
    assert_ends(worker)


def assert_ends(process):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not ended(process):
        time.sleep(0.1)
    assert ended(process)


def ended(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    # A container without an init leaves orphans as zombies.
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def test_an_interrupted_training_ends_the_processes_that_it_opened():
    def interrupted():
        # As many as in the other tests' pool, so that its processes are used again.
        with open_executor("processes:2") as pool:
            workers.append(pool.submit(os.getpid).result())
            pool.submit(signal.pause)
            raise KeyboardInterrupt

    workers = []
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    (worker,) = workers
    assert_ends(worker)


def main_comparison(features, store, executor):
    """The tables of the main comparison, from the notebook's own calls at the quick profile."""
    profile = load_catalogue(ROOT).profiles["quick"].get("main-comparison", {})
    parameters = validate("main-comparison", profile)
    methods = [f"{s} × {a}" for a in parameters.actuators for s in parameters.signals]
    lab = Lab(store, features=features, device="cpu", executor=executor)
    tuning = tune_methods(lab, parameters, ["fixed", "learned τ", *methods])
    runs = results_table(replicate(lab, tuning.chosen, range(parameters.seeds)))
    return runs, against(runs, "fixed", parameters.margin)


@pytest.fixture
def cluster_of():
    """A function that starts a dask cluster of a number of processes on this machine."""
    distributed = pytest.importorskip("distributed")
    with ExitStack() as opened_here:

        def start(workers):
            local = distributed.LocalCluster(
                n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None
            )
            opened_here.enter_context(local)
            cluster = Cluster(local.scheduler_address)
            opened_here.callback(cluster.shutdown)
            return cluster

        yield start


def test_a_cluster_with_a_killed_worker_gives_the_table_of_the_main_comparison(
    cluster_of, tmp_path
):
    """Two worker processes of a dask cluster, one of them killed. 800 training images, as in the
    quick profile, with made-up features, since the cluster does not run the towers."""
    features = synthetic_features(train=800, val=60, test=60)
    expected = main_comparison(features, fresh(tmp_path, "serial"), "serial")
    folder = marks(tmp_path)
    executor = Saboteur(cluster_of(2), folder, lambda number, _: number == 4)
    found = main_comparison(features, fresh(tmp_path, "cluster"), executor)
    assert len(list(folder.iterdir())) == 1
    for one, other in zip(expected, found, strict=True):
        pd.testing.assert_frame_equal(one, other, check_exact=True)


def test_data_that_went_down_with_the_only_worker_are_sent_again(
    serial, train_small, cluster_of, tmp_path
):
    """The scheduler keeps no copy of scattered data, so a replacing worker has none."""
    assert_a_loss_changes_nothing(serial, train_small, tmp_path, cluster_of(1), 2)


def test_a_missing_scheduler_is_reported(monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr("lib.training.executors.SECONDS_TO_ANSWER", 1)
    with pytest.raises(ExecutorError, match="no dask scheduler answers at 127"):
        Cluster("127.0.0.1:1")


@pytest.mark.parametrize("trained_before", [True, False])
def test_records_of_two_contents_of_a_corpus_are_not_mixed(train_small, capsys, trained_before):
    train_small([config()])
    other = replace(synthetic_features(seed=1), corpus_fingerprint="another corpus")
    if trained_before:
        train_small([config(seed=1)], features=other)
    capsys.readouterr()
    records = train_small([config(), config(seed=1)], features=other)
    assert {record.corpus_fingerprint for record in records} == {"another corpus"}
    assert "1 finished runs are of other content of synthetic" in capsys.readouterr().err


def test_content_that_is_named_decides(train_small, capsys):
    """All runs are finished, of one content: today's features are of another."""
    before = train_small([config()])
    other = replace(synthetic_features(seed=1), corpus_fingerprint="another corpus")
    (after,) = train_small([config()], features=other)
    assert after.corpus_fingerprint == "another corpus"
    assert after.difference(before[0])
    assert "1 finished runs are of other content of synthetic" in capsys.readouterr().err
    assert_all_the_same(train_small([config()], features=other), [after])
    assert "other content" not in capsys.readouterr().err


def test_a_published_run_of_other_content_hides_no_run_of_this_machine(tmp_path, capsys):
    other = replace(synthetic_features(seed=1), corpus_fingerprint="another corpus")
    published = Store(folder=tmp_path / "there", published=tmp_path / "none")
    theirs = train([config()], store=published, features=synthetic_features(), device="cpu")
    export_records(theirs, tmp_path / "published")
    here = Store(folder=tmp_path / "here", published=tmp_path / "published")
    for _ in range(2):
        (ours,) = train([config()], store=here, features=other, device="cpu")
        assert ours.corpus_fingerprint == "another corpus"
    assert capsys.readouterr().err.count("finished runs are of other content") == 1
    (first,) = train([config()], store=here, features=synthetic_features(), device="cpu")
    assert first.corpus_fingerprint == theirs[0].corpus_fingerprint


@pytest.mark.parametrize("by", ["corpus_root", "variable"])
def test_a_corpus_whose_folder_is_named_is_read_though_all_runs_are_finished(
    train_small, tmp_path, monkeypatch, by
):
    monkeypatch.delenv("FLICKR8K_ROOT", raising=False)
    run = config(corpus="flickr8k")
    (first,) = train_small([run])
    (again,) = train_small([run], features=None)
    assert_all_the_same([again], [first])
    options = {"corpus_root": str(tmp_path)} if by == "corpus_root" else {}
    if by == "variable":
        monkeypatch.setenv("FLICKR8K_ROOT", str(tmp_path))
    with pytest.raises(ValueError, match=str(tmp_path)):
        train_small([run], features=None, **options)


def test_a_named_corpus_of_the_same_content_needs_no_features(train_small, monkeypatch, tmp_path):
    (first,) = train_small([config(corpus="flickr8k")])
    same = SimpleNamespace(fingerprint=first.corpus_fingerprint)
    monkeypatch.setattr(trainer, "load_corpus", lambda *_, **__: same)
    monkeypatch.setattr(trainer, "extract_features", lambda *_: pytest.fail("features are read"))
    options = {"features": None, "corpus_root": str(tmp_path)}
    assert_all_the_same(train_small([config(corpus="flickr8k")], **options), [first])


def test_a_store_that_cannot_be_written_serves_its_runs_and_trains_none(
    train_small, features, monkeypatch
):
    (first,) = train_small([config()])

    def refuse(folder):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(folder))

    monkeypatch.setattr(trainer, "require_writable", refuse)
    monkeypatch.setattr(trainer, "train_stack", lambda *_: pytest.fail("a run was trained"))
    assert_all_the_same(train_small([config()]), [first])
    with pytest.raises(TrainingError, match=r"1 runs are to be .* kept: .*: Read-only file system"):
        train_small([config(), config(seed=1)])


def test_runs_of_an_older_results_version_are_trained_again(train_small, monkeypatch, capsys):
    train_small([config()])
    raise_results_version(monkeypatch, 2)
    train_small([config()])
    assert "1 finished runs were made by code that gave other numbers" in capsys.readouterr().err


def test_a_record_has_the_version_of_the_code_that_made_it(serial):
    assert {record.made["code"] for record in serial} == {distribute.code_version()}
