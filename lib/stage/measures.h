#pragma once
// The ops that measure or use a model and change nothing: eval, bench, generate, chat, doctor. Their tables serve the command line, the
// recipe's `eval:` section and the engine alike, as the stages' tables do.
//
//   eval      job.model, job.models["reference"] (optional), settings {tasks: [...], save_logits}
//             -> {"model": {"load_s"}, "tasks": [one object per task, in order], "peak_bytes", "cpu_s"}
//               ppl       {"task": "ppl", "file", "window", "windows", "tokens", "bytes", "protocol", "nll", "ppl", "bits_per_byte"} and with a
//                         reference {"reference_ppl", "ppl_ratio", "kl", "top1_agreement"}: kl in nats per token, mean; windows: 0 scores the
//                         whole text, with a reference {"reference_bits_per_byte", "bits_per_byte_ratio"}, its vocabulary may be another
//               choices   {"task": "choices", "file", "items", "acc", "acc_norm", "picks": [..], "picks_norm": [..]}: picks are indices of choices
//               pairs     {"task": "pairs", "file", "items", "acc", "picks": [0|1 ..]}: 0 = the good sentence was likelier
//               classify  {"task": "classify", "file", "items", "classes": [..], "accuracy", "nll", "latency": seconds of one piece alone, "memory": bytes, the largest, "picks", "protocol"};
//                         {"task": "classify", "file", "skipped": why} for a model that was not tuned to classify
//             save_logits: FILE.safetensors of "logits" F32 [windows, window, vocab] and "ids" I64 [windows, window] of the first ppl task
//   bench     -> {"rows": [{"what": "forward"|"prefill"|"decode", "batch", "seq", "tokens", "cpu_s", "wall_s", "tokens_per_s", "flops",
//             "gflops", "share_of_peak"}], "peak_gflops", "peak_bytes"}
//   generate  -> events {"event": "text", "text": "..."} as pieces come (whole UTF-8 sequences), then
//             {"text", "ids": [..], "prompt_tokens", "tokens", "stop": "eos"|"length"|"stop", "tokens_per_s"}
//   chat      reads JSON lines from standard input: {"user": "..."} or {"reset": true}; end of input ends the op. For each user line: text
//             events, then {"event": "turn", "tokens", "tokens_per_s", "stop"}; SIGINT ends the turn, not the chat. Result: {"turns": n}.
//             The prompt is made by the chat template that the model carries; Error(Unsupported) when it carries none that we know.
//   doctor    -> {"torch", "torch_built", "cuda", "device": kind of job.device: "cpu" or the GPU's name, "devices": [..], "gemm": {"chosen", "mkl_gflops", "onednn_gflops", "peak_gflops"}, "threads"}
#include <vector>

#include "stage/info.h"

namespace slmc::stage {

// One entry of eval's `tasks`, also of the recipe's: exactly one of ppl, choices, pairs, classify is given.
const std::vector<Setting>& eval_task_table();

const StageInfo& eval_info();
const StageInfo& bench_info();
const StageInfo& generate_info();
const StageInfo& chat_info();
const StageInfo& doctor_info();

}  // namespace slmc::stage
