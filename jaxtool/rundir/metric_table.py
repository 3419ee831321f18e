"""Every metric of a run, once: its name and what it means. docs/metrics.md is written from it.

A name is area/name_unit; `{...}` stands for a part of it that differs (a level, a reason). A test compares
this table with the names that the code writes, both ways.

Also here: which metrics depend on the clock, so that two equal runs differ in them.
"""

from collections.abc import Mapping
from typing import TypeVar

# name -> meaning, unit and range in one line.
METRICS: dict[str, str] = {
    "reward/mean": "Mean reward of the answers that were scored.",
    "reward/accuracy_fraction": "Share of the scored answers whose final answer is right.",
    "reward/without_answer_fraction": "Share of the answers in which the judge found no answer at all: no tag, no box.",
    "reward/tool_coefficient_mean": "Mean of OTC's r_tool: 1 means that no call was superfluous. 1 in other rewards.",
    "reward/call_cost_mean": "Mean cost m of an answer's calls. Missing where every call costs 1 (CallCost).",
    "reward/call_cost_mean/{tool}": "What the calls of one tool take of the mean cost. Missing for a tool that nobody called.",
    "reward/learnable_group_fraction": "Share of the groups drawn whose rewards differ; the others have no gradient.",
    "tools/calls_per_answer": "TC of the papers: executed calls of an answer, mean.",
    "tools/calls_per_correct_answer": "Executed calls of a right answer, mean.",
    "tools/calls_per_wrong_answer": "Executed calls of a wrong answer, mean.",
    "tools/answers_with_call_fraction": "Share of the answers with one call or more.",
    "tools/productivity_ratio": "TP of the papers: right answers over all calls. Missing while nothing is called.",
    "tools/calls_per_answer/{tool}": "TC of one tool. The figures of the tools add up to TC.",
    "tools/answers_with_call_fraction/{tool}": "Share of the answers that called the tool. Only with several tools.",
    "tools/productivity_ratio/{tool}": "TP of one tool: right answers over its calls. Only with several tools.",
    "tools/accuracy_with_call_fraction/{tool}": "Share of the answers that called the tool that are right. Only with several tools.",
    "tools/unexecuted_per_answer": "Calls written behind the limit of calls and never run, mean.",
    "tools/invalid_per_answer": "Calls that could not be made (no JSON, no such tool, a missing argument), mean.",
    "tools/calls_count/{tool}": "Calls that the tool answered since the last row, on all hosts: of the step, lost trajectories included, and of its validation.",
    "tools/errors_count/{tool}": "Of these calls, those that ended in an error of the call: it raised, or broke a limit other than time.",
    "tools/deadlines_count/{tool}": "Of these calls, those that reached a deadline or a limit of time.",
    "tools/unavailable_count/{tool}": "Calls that could not be answered; each masked its trajectory.",
    "tools/retried_count/{tool}": "Calls to a tool of an MCP server that were made again because the server failed.",
    "tools/invalid_count/{tool}": "Calls of the tool's name that could not be made.",
    "tools/ok_fraction": "Share of the calls that ended without an error.",
    "tools/failed_fraction/{status}": "Share of the calls that ended so (error, time-out, memory, ...).",
    "tools/infrastructure_failed_fraction": "Share of the answers lost to a tool or judge that could not be reached. They are masked, never scored.",
    "tools/known_answers_count": "Programs with known answers that the servers ran before this update, on all hosts.",
    "tools/unreachable_servers_count": "Servers that could not be asked for a known answer, in this step; each host counts its own.",
    "tools/executions_total": "Programs that the client sent to a sandbox since the run began, over resumes.",
    "tools/retries_total": "Calls sent again because a server failed.",
    "tools/result_cache_hits_total": "Calls answered from the client's result cache.",
    "tools/sessions_opened_total": "Interpreter sessions opened (`PythonSandbox.state`), those that replace a lost one included.",
    "tools/sessions_lost_total": "Sessions lost to a server that ended or made room.",
    "tools/sessions_replayed_total": "Lost sessions whose state was made again by the trajectory's programs.",
    "tools/sessions_masked_total": "Trajectories masked because their session was lost and not made again.",
    "tools/server_result_cache_hits_total": "Calls answered from a server's result cache.",
    "behaviour/answers_with_code_fraction": "Share of the answers that ran a program: the code ratio of ReTool and ToRL.",
    "behaviour/accuracy_with_code_fraction": "Share of the answers with a program that are right.",
    "behaviour/accuracy_without_code_fraction": "Share of the answers without a program that are right.",
    "behaviour/code_lines_per_answer": "Lines of an answer's programs, mean over answers with one; no blank lines, no comments.",
    "behaviour/code_lines_per_program": "Lines of a program, mean.",
    "behaviour/ok_programs_count": "Programs of the step that ran without error: ReTool's correct code count.",
    "behaviour/ok_programs_fraction": "Share of the programs that ran without error: ToRL's pass ratio.",
    "behaviour/ok_programs_fraction/{verdict}": "Share of the programs of right and of wrong answers that ran without error.",
    "behaviour/ok_last_program_fraction/{verdict}": "Share of right and of wrong answers with a program whose last one ran without error.",
    "behaviour/recovered_programs_fraction": "Share of the failed programs whose next one in the answer runs. Missing while none fails.",
    "behaviour/self_corrected_programs_fraction": "Share of the failed programs whose next one runs and is a version of them.",
    "behaviour/first_call_position_fraction": "Where the first call is made: 0 is the first token of the response, 1 the last. Mean.",
    "behaviour/call_position_fraction": "Where a call is made, mean of all calls: 0 is the first token of the response, 1 the last.",
    "behaviour/executed_calls_fraction": "Share of the calls written that were run; the others came after the limit of calls.",
    "behaviour/repeated_queries_fraction": "Share of the queries that the same answer has made before. Only with a search tool.",
    "behaviour/over_use_per_answer": "Calls beyond those needed, mean. Only where every level's need is known (arithmetic, facts).",
    "behaviour/under_use_per_answer": "Calls missing to those needed, mean.",
    "tokens/response_mean": "Tokens of an answer with the tool's output, mean.",
    "tokens/policy_mean": "Tokens of an answer that the policy wrote, mean.",
    "tokens/finish_fraction/{reason}": "Share of the answers that ended so (stop tag, length, tool limit, ...).",
    "tokens/shared_prompts_fraction": "Share of the learner's tokens that it does not read because samples share a prompt. Only with `PackConfig.shares_prompts`.",
    "tokens/sampled_total": "Tokens sampled since the run began, on all hosts.",
    "tokens/sampled_per_s": "Sampled tokens of this step over the seconds of its rollouts.",
    "tokens/reprefilled_total": "Tokens that were run a second time. 0, or the cache was not kept.",
    "tokens/read_back_answers_count": "Answers of the step that an earlier process finished and a resume read back. Missing where none was.",
    "tokens/moved_rows_total": "Rows that went to the memory of the host because the pool of pages was dry. Only with EngineConfig.pages.",
    "tokens/moved_pages_total": "Pages that went to the memory of the host or came back. Only with EngineConfig.pages.",
    "tokens/useful_row_steps_fraction": "Share of the decoded rows and steps in which a row had something to do, since the run began.",
    "tokens/useful_until_queue_empty_fraction": "Share of the decoded rows and steps with something to do, in this step, until nobody waits for a row.",
    "tokens/draft_guessed_total": "Tokens guessed by drafts since the run began, on all hosts. Only with `EngineConfig.drafts`.",
    "tokens/draft_accepted_total": "Guesses that the row drew itself, and that so cost no pass of their own.",
    "tokens/draft_per_pass_mean": "Tokens that a row made in a pass of a window with drafts, mean; 1 without a right guess.",
    "tokens/draft_windows_fraction": "Share of the windows that ran with drafts, since the run began.",
    "level/accuracy_fraction/{level}": "Accuracy on the questions of one level.",
    "level/calls_per_answer/{level}": "Calls of an answer on the questions of one level.",
    "filter/draws": "Batches of problems drawn for this step; more than 1 only with refilling.",
    "filter/chosen_fraction": "Share of the sampled answers in the groups that were chosen.",
    "filter/learned_fraction": "Share of the sampled answers that carry a loss.",
    "filter/broken_group_fraction": "Share of the groups with a lost answer. Nothing of them is learned.",
    "policy/loss": "Mean loss of the step's updates, all terms together.",
    "policy/grad_norm": "Global norm of the gradient before clipping.",
    "policy/skipped_updates": "Updates of the step that were left out, because loss or gradient was not finite.",
    "policy/entropy_nats": "Entropy of the policy at its own tokens, mean.",
    "policy/clipped_fraction": "Share of the policy's tokens whose gradient the clip removed.",
    "policy/kl_k3_nats": "KL to the reference policy by the k3 estimate, mean over the policy's tokens.",
    "policy/correction_weight_mean": "Mean importance weight against the sampler.",
    "policy/rejected_fraction": "Share of the policy's tokens that got the weight 0.",
    "critic/loss": "Mean value loss.",
    "critic/grad_norm": "Global norm of the critic's gradient before clipping.",
    "critic/skipped_updates": "Updates of the critic that were left out, because loss or gradient was not finite.",
    "critic/clipped_fraction": "Share of the tokens whose value loss was clipped.",
    "critic/value_mean": "Mean value at the policy's tokens.",
    "critic/return_mean": "Mean return at the policy's tokens.",
    "critic/explained_variance_fraction": "1 - var(return - value) / var(return); 1 is perfect, 0 is a constant.",
    "mismatch/mean_abs_logprob_nats": "Mean difference of log-probs of sampler and learner at the same tokens.",
    "mismatch/max_abs_logprob_nats": "The largest such difference: about 1e-5 in float32, more in bfloat16.",
    "mismatch/kl_k1_nats": "Estimate k1 of KL(sampler, learner).",
    "mismatch/kl_k3_nats": "Estimate k3 of KL(sampler, learner), never negative.",
    "mismatch/chi2": "χ² divergence of the learner from the sampler.",
    "staleness/mean_updates": "Updates between sampling a token and learning from it, mean.",
    "staleness/max_updates": "The most of them; `Schedule.max_staleness` at the most.",
    "staleness/older_tokens_fraction": "Share of the tokens that are one update old or more.",
    "validation/answers_count": "Answers on which the validation's figures rest.",
    "validation/lost_count": "Answers lost, also when asked again. Too many: there are no figures.",
    "validation/accuracy_fraction": "Accuracy on the validation problems, sampled as `Schedule.eval_sampling` says.",
    "validation/average_at_fraction/{k}": "avg@k: mean over questions of the share right of k = `Schedule.eval_samples` answers. With k > 1.",
    "validation/pass_at_fraction/{k}": "pass@k: chance that one of k answers is right, for k = 1, 2, 4, ... up to `Schedule.eval_samples`.",
    "validation/accuracy_lenient_fraction": "Accuracy on the validation problems by the judge's lenient rule, if it reports one.",
    "validation/accuracy_fraction/{level}": "Accuracy on the validation problems of one level.",
    "validation/calls_per_answer": "Calls of an answer on the validation problems.",
    "validation/calls_per_answer/{level}": "Calls of an answer on the validation problems of one level.",
    "validation/tool_calls_per_answer/{tool}": "Calls of one tool of an answer on the validation problems. Only with several tools.",
    "validation/tool_productivity_ratio/{tool}": "Right answers over the tool's calls. Only with several tools.",
    "sft/loss_nats": "Cross-entropy of the demonstrations' trained tokens, mean.",
    "sft/grad_norm": "Global norm of its gradient before clipping.",
    "sft/skipped_updates": "Updates since the last row that were left out: loss or gradient was not finite.",
    "health/beyond_count/{kind}": "1 where the step's number of this kind is beyond its limit in `HealthLimits`, else 0 (docs/runs.md).",
    "timing/step_s": "Seconds of the whole step, from the weights that go to the decoder; without validation and checkpoint.",
    "timing/collect_s": "Seconds of its rollouts and rewards.",
    "timing/update_s": "Seconds of its update, with the packing of the batch.",
    "timing/decode_s": "Seconds in which the decoder ran.",
    "timing/prefill_s": "Seconds in which prompts ran and were copied into cache rows.",
    "timing/judge_s": "Seconds in which the answers were judged; on several hosts with the wait for the others.",
    "timing/data_s": "Seconds in which problems were drawn.",
    "timing/share_fraction/{part}": "Share of the step that was spent waiting for the decoder, tool, judge, learner or data. The largest is the bottleneck.",
    "timing/tool_wait_s": "Seconds in which nothing could be decoded because all rows waited for a tool.",
    "timing/call_p50_s/{tool}": "Seconds of a call, without the wait for a place; half of the calls took no longer.",
    "timing/call_p95_s/{tool}": "Seconds of a call, without the wait for a place; 95 of 100 calls took no longer.",
    "timing/drawn_again_s": "Seconds that the oldest unfinished answer had been growing when the last process was told to stop. In the first row after it.",
    "timing/half_of_groups_s": "Seconds until half of the groups were complete.",
    "timing/late_programs_total": "Programs that had to be compiled in the middle of a rollout. 0 is right.",
    "timing/decoder_wait_s": "Overlapped rollouts: seconds in which the decoder waited for the learner.",
    "timing/learner_wait_s": "Overlapped rollouts: seconds in which the learner waited for answers.",
    "metrics/non_finite_count": "Values of this row that were NaN or infinite and stand as null.",
    "metrics/tracker_lost_total": "Rows and tables that the trackers of --log lost since this process began.",
}


def meaning_of(name: str) -> str:
    """What a metric means: the line of its name, or of its family with `{...}` for the last part; "" of others."""
    area, _, rest = name.partition("/")
    metric, slash, _ = rest.partition("/")
    families = (
        key
        for key in METRICS
        if slash and key.startswith(f"{area}/{metric}/{{") and key.endswith("}")
    )
    return METRICS.get(name) or next((METRICS[key] for key in families), "")


# Beginnings of the names whose values are times, or depend on them: a row that waits for a tool leaves its place in the
# decoder to others or to nobody, so how full the decoder was depends on how fast tools answered.
# Whether a program is late is a matter of what this process has compiled.
OF_THE_CLOCK = (
    *("time_s", "timing/", "tokens/sampled_per_s", "tokens/useful_"),
    "tokens/read_back_answers_count",  # of what was stopped, not of what was computed
    "health/beyond_count/late_programs",
    "health/beyond_count/gradient_spike",  # against the steps that this process has seen
)

_V = TypeVar("_V")


def without_clock(row: Mapping[str, _V]) -> dict[str, _V]:
    """The part of a row that a run with the same seed on the same machine gives again, bit by bit."""
    return {name: value for name, value in row.items() if not name.startswith(OF_THE_CLOCK)}
