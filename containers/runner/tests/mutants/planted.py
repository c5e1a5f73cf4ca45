"""Bugs that save, resume, the parity gate or several processes could have, each with the test that must fail for it.

`old` stands in the file exactly once; `new` takes its place in a copy of the source. A bug is chosen so that nothing
but wrong numbers or lost work would tell it: the run goes on.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """One bug: what it is, the edits (file under devgw_runner, old text, new text), the test that must see it."""

    name: str
    edits: tuple[tuple[str, str, str], ...]
    test: str


def mutant(name: str, file: str, old: str, new: str, test: str) -> Mutant:
    return Mutant(name, ((file, old, new),), test)


CRASH = "test_durable.py::test_a_crash_at_any_moment_leaves_what_was_reported_saved"
ALL_BACK = "test_checkpoint.py::test_everything_comes_back"
GRADIENTS = "test_parity.py::test_a_right_loss_with_a_wrong_gradient_is_left"

SAVE = [
    mutant("no fsync of files", "checkpoint/durable.py", "        os.fsync(stream.fileno())\n", "", CRASH),
    mutant(
        "no fsync of the new name",
        "checkpoint/durable.py",
        "    sync_directory(final.parent)\n    if aside",
        "    if aside",
        CRASH,
    ),
    mutant("no fsync of the names inside", "checkpoint/store.py", "    durable.sync_directory(temporary)\n", "", CRASH),
    mutant(
        "no temporary name", "checkpoint/store.py", 'f"{TEMPORARY_PREFIX}step-{step:08d}"', 'f"step-{step:08d}"', CRASH
    ),
    mutant(
        "the sealed copy is deleted before the new one is there",
        "checkpoint/durable.py",
        "    elif _exchange(temporary, final):\n        aside = temporary\n",
        "    elif not shutil.rmtree(final):\n        os.rename(temporary, final)\n",
        "test_durable.py::test_a_step_saved_again_is_there_at_every_moment",
    ),
    mutant(
        "a state that is not finite is sealed",
        "loop.py",
        "    if run.world.every(not bad):",
        "    if run.world.every(True):",
        "test_finite.py::test_ignoring_seals_nothing_that_is_not_finite_and_says_so",
    ),
    mutant(
        "gradients are not watched",
        "watch.py",
        "        self._gradient.copy_(size)",
        "        pass",
        "test_finite.py::test_a_state_that_is_not_finite_is_never_sealed",
    ),
    mutant(
        "pruning reaches into other branches",
        "checkpoint/store.py",
        "    own = [path for path in list_checkpoints(root) if branch_of(path) == branch]",
        "    own = list_checkpoints(root)",
        "test_branches.py::test_pruning_stays_within_the_branch",
    ),
    mutant(
        "the best are pruned too",
        "checkpoint/store.py",
        "        if path in spared:\n            continue\n",
        "",
        "test_monitor.py::test_the_best_checkpoints_stay_beside_the_newest",
    ),
    mutant(
        "a failed background write is forgotten",
        "checkpoint/writer.py",
        "            raise self._told(failure) from failure",
        "            return",
        "test_checkpoint.py::test_a_failure_in_the_background_is_raised_at_the_next_poll",
    ),
]

RESUME = [
    mutant(
        "checksums are not compared",
        "checkpoint/store.py",
        "        if _sha256(path) != digest:",
        "        if not digest:",
        "test_checkpoint.py::test_any_flipped_bit_is_found",
    ),
    mutant(
        "a damaged checkpoint is taken",
        "checkpoint/resume.py",
        "            return Found(path, store.verify(path), tuple(complaints))",
        "            return Found(path, store.read_manifest(path), tuple(complaints))",
        "test_bad_input.py::test_a_corrupt_newest_checkpoint_is_passed_over_for_an_older_one",
    ),
    Mutant(
        "moments come back contiguous, and nobody looks",
        (
            ("checkpoint/layout.py", "torch.empty_strided(self.shape, self.stride, ", "torch.empty(self.shape, "),
            ("checkpoint/layout.py", "        if _steps(self) != _steps(other):", "        if False:"),
        ),
        "test_layout.py::test_moments_of_channels_last_weights_come_back_channels_last",
    ),
    Mutant(
        "the optimizer's state is left behind, and nobody looks",
        (
            ("checkpoint/optimizer.py", "    optimizer.load_state_dict(tree)\n", ""),
            ("checkpoint/state.py", "    optimizer_state.check_restored(", "    (lambda *_, **__: None)("),
        ),
        ALL_BACK,
    ),
    mutant(
        "random state is left behind",
        "checkpoint/state.py",
        '        restore_random_state(saved["random"])',
        "        pass",
        ALL_BACK,
    ),
    mutant(
        "NumPy's random state is left behind",
        "randomness.py",
        "    np.random.set_state((kind, np.array(numpy_words, dtype=np.uint32), *rest))",
        "    pass",
        "test_checkpoint.py::test_the_generators_of_python_numpy_and_torch_come_back",
    ),
    mutant(
        "the schedule is left behind",
        "checkpoint/hyperparameters.py",
        "    schedule.load_state_dict(state)\n",
        "",
        "test_monitor.py::test_a_plateau_schedule_follows_the_evaluations",
    ),
    mutant(
        "the loss scaler is left behind",
        "checkpoint/state.py",
        '    state.scaler.load_state_dict(decode(saved["scaler"]))\n',
        "",
        "test_checkpoint.py::test_the_loss_scaler_goes_on_where_it_was",
    ),
    mutant(
        "patience is left behind",
        "checkpoint/state.py",
        '    state.monitor.load_state_dict(saved.get("monitor", {}))\n',
        "",
        "test_monitor.py::test_patience_is_counted_across_resumes",
    ),
    mutant(
        "what a hook froze is thawed",
        "checkpoint/state.py",
        "    freeze_as_saved(state.model, switches, state.frozen_at_start)\n",
        "",
        "test_switches.py::test_what_a_hook_switched_is_the_same_after_a_resume",
    ),
    mutant(
        "a data set goes on one batch late",
        "sampler.py",
        "                offset = begin + batch * self.global_batch",
        "                offset = begin + (batch + (begin > 0)) * self.global_batch",
        "test_sampler.py::test_a_resume_anywhere_continues_the_same_order",
    ),
    mutant(
        "a data set goes on one sample late",
        "checkpoint/state.py",
        '    state.position = Position(**saved["position"])',
        '    state.position = Position(**saved["position"] | {"samples": saved["position"]["samples"] + 1})',
        "test_exact_resume.py::test_sigterm_in_training_saves_and_resumes_to_the_same_bits",
    ),
    mutant(
        "a loader goes on one batch late",
        "own_loader.py",
        "else self.cursor.batches < there.batches:",
        "else self.cursor.batches <= there.batches:",
        "test_own_loader.py::test_a_loader_goes_on_at_every_boundary",
    ),
    mutant(
        "a stateful loader begins anew",
        "own_loader.py",
        '            self.loader.load_state_dict(copy.deepcopy(saved["inner"]))',
        "            pass",
        "test_own_loader.py::test_a_run_with_a_stateful_loader_sees_every_batch_once",
    ),
    mutant(
        "an interrupted evaluation is not made up",
        "checkpoint/state.py",
        '    state.evaluated_step = saved["evaluated_step"]',
        '    state.evaluated_step = saved["position"]["step"]',
        "test_exact_resume.py::test_sigterm_in_evaluation_saves_and_the_evaluation_is_made_up",
    ),
    mutant(
        "each process gets the main one's statistics",
        "checkpoint/state.py",
        '        values |= saved.get("buffers", {})',
        "        pass",
        "test_checkpoint.py::test_a_process_takes_the_buffers_of_its_own_file",
    ),
]

PARITY = [
    mutant(
        "the parity gate compares outputs only",
        "parity.py",
        "    check_loss(first.loss, reference.losses, precision)\n",
        "    check_loss(first.loss, reference.losses, precision)\n    return\n",
        GRADIENTS,
    ),
    mutant(
        "the parity gate compares the first gradient only",
        "parity.py",
        "        for name, expected in reference.gradients.items():",
        "        for name, expected in list(reference.gradients.items())[:1]:",
        GRADIENTS,
    ),
    mutant(
        "a gradient that is no number passes",
        "parity.py",
        "    if not differs <= allowed:",
        "    if differs > allowed:",
        "test_parity.py::test_a_gradient_that_is_not_a_number_is_rejected",
    ),
    mutant(
        "a loss that is no number passes",
        "parity.py",
        "    if not abs(loss - expected) <= tolerance:",
        "    if abs(loss - expected) > tolerance:",
        "test_parity.py::test_a_loss_that_is_not_a_number_is_rejected",
    ),
    mutant(
        "a rung without a graph is a rung",
        "ladder.py",
        "    if compiled.graphs == 0:",
        "    if compiled.graphs < 0:",
        "test_parity.py::test_a_rung_without_a_graph_is_no_rung",
    ),
    mutant(
        "dropout excuses every gradient",
        "parity.py",
        "    if not reference.draws:",
        "    if reference.draws:\n        return\n    if not reference.draws:",
        GRADIENTS,
    ),
    mutant(
        "a rung that fell stays compiled",
        "ladder.py",
        "        module._compiled_call_impl = None",
        "        pass",
        "test_parity.py::test_a_step_that_fell_computes_what_eager_computes",
    ),
]

SWITCHED = "test_switched_processes.py::"

PROCESSES = [
    Mutant(
        "DDP is not made anew for what was thawed, and nobody looks",
        (
            ("remake.py", "    if isinstance(run.step, AttentiveDDP):", "    if False:"),
            ("remake.py", '    if run.plan.parallel.value == "ddp":', "    if False:"),
            ("parallel/unused.py", "    if alone:", "    if False:"),
        ),
        SWITCHED + "test_two_processes_follow_a_hook_as_one_does[ddp-thaw]",
    ),
    mutant(
        "a hook after an evaluation thaws a copy",
        "evaluation.py",
        "        give_back_gathered(run.state.model)",
        "        pass",
        SWITCHED + "test_two_processes_follow_a_hook_as_one_does[fsdp-evaluation]",
    ),
    mutant(
        "FSDP2 keeps the dtype of a block that was frozen",
        "remake.py",
        "        note_dtypes(run.state.model)\n",
        "",
        SWITCHED + "test_a_block_that_was_frozen_is_thawed_under_fsdp_in_bf16",
    ),
    mutant(
        "compiled code is not made anew for what was thawed",
        "remake.py",
        "_compile_again(run, batch) if run.is_compiled else 0",
        "0",
        SWITCHED + "test_a_compiled_step_follows_a_hook[thaw]",
    ),
    mutant(
        "what was frozen keeps its gradient",
        "remake.py",
        "    run.switches.clear_gradients(switched.frozen)\n",
        "",
        SWITCHED + "test_a_captured_graph_is_left_and_what_was_frozen_has_no_gradient",
    ),
    mutant(
        "processes need not switch the same",
        "parallel/world.py",
        "            self._is_alike = highest == -lowest",
        "            self._is_alike = True",
        SWITCHED + "test_processes_that_switch_differently_are_refused[thaw-ddp]",
    ),
    mutant(
        "three processes add in another order after a resume",
        "remake.py",
        "        _arrange_buckets(run, wrapped, batch)\n",
        "        pass\n",
        "test_parallel.py::test_three_processes_resume_to_the_same_bits",
    ),
    mutant(
        "DDP gives a resumed process the first one's statistics",
        "parallel/wrapping.py",
        "init_sync=not is_begun",
        "init_sync=True",
        "test_parallel.py::test_an_evaluation_made_up_after_a_resume_sees_each_process_s_own_statistics",
    ),
    Mutant(
        "a process that was stopped is waited for",
        (
            ("parallel/world.py", ", timeout=timedelta(seconds=timeout_seconds))", ")"),
            ("parallel/world.py", "        set_timeout(dist.group.WORLD, timeout_seconds)\n", "        pass\n"),
        ),
        "test_waiting.py::test_under_fsdp_it_ends_the_same",
    ),
    mutant(
        "a wish for the first start counts for each",
        "checkpoint/start.py",
        '"auto" if is_under_way(root, launchers) else wish',
        "wish",
        "test_cluster.py::test_a_process_that_dies_is_started_again_with_all_others",
    ),
]

ALL = [*SAVE, *RESUME, *PARITY, *PROCESSES]
