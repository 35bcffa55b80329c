"""Ways to break Treadle that its tests must notice: a text in a file, what to put there, and which tests.

A mutation must apply exactly once; where the code has moved on, the runner says so and the list follows.
"""

from __future__ import annotations

from dataclasses import dataclass

RESUME = "tests/exact/test_resume.py"
EVERY_STEP = f"{RESUME}::test_resume_at_every_step[0]"
PRECISION = f"{RESUME}::test_resume_in_reduced_precision[fp16]"
GENERATORS = "tests/exact/test_generators.py"
EPOCH_END = "tests/exact/test_epoch_end.py"
KILL = "tests/checkpoint/test_kill.py"
SYNCED = f"{KILL}::test_everything_is_synced_before_the_commit_and_the_commit_after"
ACCUMULATION = "tests/exact/test_accumulation.py"
DEATHS = "tests/crash/test_deaths.py"
SAMPLING = "tests/data/test_sampling.py"
WORKERS = "tests/data/test_workers.py"
OTHERS = "tests/exact/test_other_settings.py"
RATES = "tests/test_rates.py"


@dataclass(frozen=True)
class Mutation:
    """What is broken, where, and the tests that must fail for it (any one of them is enough)."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


MUTATIONS = (
    Mutation(
        "skip one batch at resume",
        "loops.py",
        "state.train_batches.iterate(progress.epoch, start)",
        "state.train_batches.iterate(progress.epoch, start + (1 if start else 0))",
        (EVERY_STEP,),
    ),
    Mutation(
        "repeat one batch at resume",
        "loops.py",
        "state.train_batches.iterate(progress.epoch, start)",
        "state.train_batches.iterate(progress.epoch, max(start - 1, 0))",
        (EVERY_STEP,),
    ),
    Mutation(
        "forget the loss scaler",
        "checkpoint/contents.py",
        '    state.engine.precision.load_state_dict(contents["precision"])\n',
        "",
        (PRECISION,),
    ),
    Mutation(
        "forget Python's generator",
        "rng.py",
        'random.setstate((python["version"], tuple(python["words"].tolist()), python["gauss"]))',
        "assert python",
        (GENERATORS,),
    ),
    Mutation(
        "forget NumPy's generator",
        "rng.py",
        "    np.random.set_state(\n",
        "    tuple(\n",
        (GENERATORS,),
    ),
    Mutation(
        "forget torch's generator",
        "rng.py",
        '    torch.set_rng_state(state["torch"])\n',
        "",
        (EVERY_STEP, GENERATORS),
    ),
    Mutation(
        "forget the metrics of the epoch under way",
        "checkpoint/contents.py",
        'metric.load_state_dict(own["metrics"][name])',
        "pass",
        (EVERY_STEP,),
    ),
    Mutation(
        "forget the averages of the epoch under way",
        "checkpoint/contents.py",
        '    state.values.load_state_dict(contents["values"])\n',
        "",
        (EVERY_STEP,),
    ),
    Mutation(
        "forget the schedules",
        "checkpoint/contents.py",
        'schedule.load_state_dict(contents["schedules"][name])',
        "pass",
        (EVERY_STEP,),
    ),
    Mutation(
        "forget the optimizers' state",
        "checkpoint/contents.py",
        'strategy.load_optimizer(state.task, optimizer, contents["optimizers"][name])',
        "pass",
        (EVERY_STEP,),
    ),
    Mutation(
        "forget the callbacks' state",
        "checkpoint/contents.py",
        '    state.hooks.load_state_dict(contents["callbacks"])\n',
        "",
        ("tests/crash/test_chain.py::test_killed_again_and_again_it_ends_the_same[bf16]",),
    ),
    Mutation(
        "forget where a stream stands",
        "checkpoint/contents.py",
        '    state.train_batches.load_state_dict(own["batches"])\n',
        "",
        (f"{RESUME}::test_resume_with_a_plain_dataloader",),
    ),
    Mutation(
        "forget gradients that the task keeps",
        "checkpoint/contents.py",
        'parameter.grad = contents["gradients"][name].to(parameter.device)',
        "pass",
        ("tests/exact/test_boundaries.py",),
    ),
    Mutation(
        "forget the step that an epoch's end belongs to",
        "checkpoint/contents.py",
        "    state.current_step = state.progress.step  #",
        "    #",
        (
            "tests/crash/test_chain.py::test_killed_again_and_again_it_ends_the_same[plain]",
            "tests/exact/test_epoch_end.py",
        ),
    ),
    Mutation(
        "do not make up for an epoch's end that a kill cut off",
        "state.py",
        " or (progress.batch > 0 and not self.ended and not self.interrupted)",
        "",
        ("tests/exact/test_early_end.py",),
    ),
    Mutation(
        "a micro-batch weighs as much as a batch",
        "engine.py",
        "gradient = loss.new_full((), share)",
        "gradient = torch.ones_like(loss)",
        ("tests/exact/test_accumulation.py",),
    ),
    Mutation(
        "save in the midst of a step",
        "callbacks/checkpoints.py",
        "    def on_step_end(self, state: State) -> None:",
        "    def on_after_optimizer_step(self, state: State) -> None:",
        (EVERY_STEP,),
    ),
    Mutation(
        "count a step after its hooks",
        "loops.py",
        "    progress.batch += len(window)\n",
        "    progress.batch += 1\n",
        (EVERY_STEP,),
    ),
    Mutation(
        "do not sync a file before the rename",
        "checkpoint/files.py",
        "            _write_all(descriptor, block)\n        os.fsync(descriptor)\n",
        "            _write_all(descriptor, block)\n",
        (SYNCED,),
    ),
    Mutation(
        "do not sync the folder before the rename",
        "checkpoint/parts.py",
        "    files.write_file(folder / MANIFEST, [manifest.to_bytes()])\n    files.sync_folder(folder)\n",
        "    files.write_file(folder / MANIFEST, [manifest.to_bytes()])\n",
        (SYNCED,),
    ),
    Mutation(
        "do not sync the rename",
        "checkpoint/commit.py",
        "    files.sync_folder(final.parent)\n    if aside is not None:\n",
        "    if aside is not None:\n",
        (SYNCED,),
    ),
    Mutation(
        "rename before the files are written",
        "checkpoint/commit.py",
        "                yield temporary\n                _commit(temporary, final, step)\n",
        "                _commit(temporary, final, step)\n                yield final\n",
        (KILL,),
    ),
    Mutation(
        "remove the old one of a step before the new one is there",
        "checkpoint/commit.py",
        "        files.rename(final, aside)\n    try:",
        "        files.remove_tree(final)\n    try:",
        (KILL,),
    ),
    Mutation(
        "retention before the commit",
        "checkpoint/writer.py",
        "        path = self._write_files(step, contents, score)\n",
        "        if self.keep_last is not None:\n"
        "            discard(self.folder, self._superseded(step, self.keep_last))\n"
        "        path = self._write_files(step, contents, score)\n",
        ("tests/checkpoint/test_writer.py", KILL),
    ),
    Mutation(
        "retention forgets the best",
        "checkpoint/writer.py",
        "        kept |= {step for _, step in ranked[: self.keep_best]}\n",
        "",
        ("tests/checkpoint/test_writer.py",),
    ),
    Mutation(
        "background saving without a copy",
        "checkpoint/snapshot.py",
        '        copies[known] = (tensor, tensor.to("cpu", copy=True))\n',
        "        copies[known] = (tensor, tensor)\n",
        ("tests/checkpoint/test_writer.py",),
    ),
    Mutation(
        "do not compare hashes",
        "checkpoint/layout.py",
        "    if digest.hexdigest() != expected:",
        "    if False:",
        ("tests/checkpoint/test_layout.py",),
    ),
    Mutation(
        "forget that a stream has ended where its last batch was a whole one",
        "data/stream.py",
        "        self._ended = True  # seen only now where the last batch was a whole one\n",
        "",
        ("tests/exact/test_resume.py",),
    ),
    Mutation(
        "take a checkpoint for that of another step",
        "checkpoint/finding.py",
        "            _check_step(path, step)\n",
        "",
        ("tests/checkpoint/test_layout.py",),
    ),
    Mutation(
        "drop the last values before a save",
        "callbacks/checkpoints.py",
        "        state.flush()\n        state.run.flush()\n",
        "        state.run.flush()\n",
        (EVERY_STEP,),
    ),
    Mutation(
        "do not sync the record before a save",
        "callbacks/checkpoints.py",
        "        state.flush()\n        state.run.flush()\n",
        "        state.flush()\n",
        (GENERATORS,),
    ),
    Mutation(
        "keep what was recorded after the checkpoint",
        "recording.py",
        'run.rewind(progress.step, origin.contents.get("recorded"))',
        "pass",
        (EVERY_STEP,),
    ),
    Mutation(
        "keep points of the same step from after the checkpoint",
        "recording.py",
        'run.rewind(progress.step, origin.contents.get("recorded"))',
        "run.rewind(progress.step)",
        (EPOCH_END,),
    ),
    Mutation(
        "shuffle by epoch only",
        "data/order.py",
        "mix(_ORDER, self.seed, self.epoch, number)",
        "mix(_ORDER, self.epoch, number)",
        ("tests/data/test_order.py", "tests/data/test_loader.py"),
    ),
    Mutation(
        "shuffle by seed only",
        "data/order.py",
        "mix(_ORDER, self.seed, self.epoch, number)",
        "mix(_ORDER, self.seed, number)",
        ("tests/data/test_order.py", "tests/data/test_loader.py"),
    ),
    Mutation(
        "the same noise in every epoch",
        "data/order.py",
        "mix(_SAMPLE, seed, epoch, index)",
        "mix(_SAMPLE, seed, index)",
        ("tests/data",),
    ),
    Mutation(
        "draw the same in every epoch",
        "data/sampling.py",
        "mix(_DRAW, seed, epoch)",
        "mix(_DRAW, seed)",
        (SAMPLING,),
    ),
    Mutation(
        "augment a sample that is drawn twice alike",
        "data/sampling.py",
        "        return np.arange(start, stop)\n",
        "        return None\n",
        (SAMPLING,),
    ),
    Mutation(
        "batches of any length",
        "data/sampling.py",
        '        samples = samples[np.argsort(self._lengths[samples], kind="stable")]\n',
        "",
        (f"{SAMPLING}::test_grouped_batches_need_little_padding_and_keep_changing",),
    ),
    Mutation(
        "samples draw from the training's generators",
        "data/seeding.py",
        "        random.setstate(self._python)\n",
        "",
        ("tests/data",),
    ),
    Mutation(
        "evaluation draws from the training's generators",
        "state.py",
        "            with rng.isolated(), torch.no_grad():",
        "            with torch.no_grad():",
        (GENERATORS,),
    ),
    Mutation(
        "a step's loss is a mean of means",
        "strategy.py",
        "        return [count / total if total else 0.0 for count in items], total\n",
        "        return [1.0 / len(items) for count in items], total\n",
        (ACCUMULATION,),
    ),
    Mutation(
        "an epoch's loss is a mean of means",
        "log.py",
        "            if len(set(steps)) < len(steps):\n",
        "            weights = [1.0 if weight else 0.0 for weight in weights]\n"
        "            if len(set(steps)) < len(steps):\n",
        (ACCUMULATION,),
    ),
    Mutation(
        "a signal ends the run before it is saved",
        "signals.py",
        '        state.interrupt(f"{signal.Signals(number).name} received")\n',
        "        raise KeyboardInterrupt\n",
        (f"{DEATHS}::test_the_first_signal_ends_the_step_saves_and_leaves_with_75[0-15]",),
    ),
    Mutation(
        "an interrupted epoch is finished early",
        "loops.py",
        "    if state.interrupted:  #",
        "    if False:  #",
        (f"{DEATHS}::test_the_first_signal_ends_the_step_saves_and_leaves_with_75[0-15]",),
    ),
    Mutation(
        "a second signal is ignored",
        "signals.py",
        "        signal.signal(signal.SIGTERM, signal.SIG_DFL)\n",
        "",
        (f"{DEATHS}::test_a_second_signal_leaves_at_once[TERM]",),
    ),
    Mutation(
        "workers answer the signals to all",
        "data/workers.py",
        '            "worker_init_fn": _begin_worker,\n',
        "",
        (f"{DEATHS}::test_a_signal_to_all_processes_at_once_leaves_with_75_too",),
    ),
    Mutation(
        "workers in use outlive a failed fit",
        "data/workers.py",
        "        _stop_all(self._running)\n",
        "",
        (f"{WORKERS}::test_a_failed_fit_leaves_no_workers[RuntimeError-samples]",),
    ),
    Mutation(
        "workers keep Python from exiting",
        "data/workers.py",
        "        Finalize(self, _stop_all, (self._running,), exitpriority=0)\n",
        "",
        (f"{WORKERS}::test_a_process_with_workers_exits[left reading]",),
    ),
    Mutation(
        "an error keeps the loop's frames",
        "trainer.py",
        '            stack.callback(setattr, state, "exception", None)\n',
        "",
        (f"{WORKERS}::test_a_fit_keeps_no_frames_of_its_error_alive",),
    ),
    Mutation(
        "workers outlive a killed trainer",
        "data/workers.py",
        "        torch.multiprocessing._prctl_pr_set_pdeathsig(signal.SIGKILL)  #",
        "        #",
        (f"{DEATHS}::test_workers_go_with_a_killed_trainer",),
    ),
    Mutation(
        "a failed save is passed over in silence",
        "callbacks/checkpoints.py",
        '            if self.on_error == "raise":\n                raise\n',
        "",
        (f"{DEATHS}::test_a_save_that_fails_stops_the_run_which_can_go_on[EIO-False]",),
    ),
    Mutation(
        "settings: another order in an epoch is not refused",
        "setups.py",
        "    if batch and changed:",
        "    if False:",
        (OTHERS,),
    ),
    Mutation(
        "settings: the seed of the order is not compared",
        "setups.py",
        'contents["seed"] != seed:',
        "False:",
        (OTHERS,),
    ),
    Mutation(
        "settings: a resume says nothing",
        "setups.py",
        "    if said and state.is_main:",
        "    if False:",
        (OTHERS,),
    ),
    Mutation(
        "settings: what is given is recorded where the checkpoint counts",
        "setups.py",
        '    setup["optimizers"] = contents["setup"]["optimizers"]\n',
        "",
        (OTHERS,),
    ),
    Mutation(
        "settings: any optimizer may go on",
        "preparing.py",
        "        check(state, origin.contents)\n",
        "",
        (OTHERS,),
    ),
    Mutation(
        "settings: a decayed rate is where a further fit begins",
        "preparing.py",
        "    begin_again(task, schedules)\n",
        "",
        (RATES,),
    ),
    Mutation(
        "settings: a rate set by hand is overwritten",
        "rates.py",
        "if key in group and _same(group[key], value):",
        "if key in group:",
        (RATES,),
    ),
    Mutation(
        "settings: groups are recorded as the schedule has made them",
        "setups.py",
        "            **described(first),\n",
        "",
        ("tests/test_setups.py",),
    ),
    Mutation(
        "a typo in what checkpoints watch is passed over",
        "callbacks/checkpoints.py",
        "        if self._must_come or self.monitor in state.results:",
        "        if self.monitor in state.results:",
        ("tests/callbacks/test_checkpoints.py",),
    ),
    Mutation(
        "the best weights are those as trained",
        "callbacks/best_weights.py",
        "self._evaluated_now or self._copies()",
        "self._copies()",
        ("tests/callbacks/test_best_weights.py",),
    ),
    Mutation(
        "a resumed run has all of its time again",
        "callbacks/time_limit.py",
        '        self._before = float(state["seconds"])\n',
        "",
        ("tests/callbacks/test_time_limit.py",),
    ),
)
