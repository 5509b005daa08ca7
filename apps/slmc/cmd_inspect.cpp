// inspect, verify: what a model file holds, and whether all of it is sound.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "apps/slmc/commands.h"
#include "apps/slmc/context.h"
#include "apps/slmc/inspect.h"
#include "core/bytes.h"
#include "core/cancel.h"
#include "core/units.h"

namespace slmc::cli {
namespace {

int run_inspect(Context& context) {
  const Summary summary = summarise(load_model(context, context.args.text("MODEL")));
  if (context.term.json()) context.term.document(context.command, to_json(summary));
  else context.term.table(table_of(summary));
  return kDone;
}

// Reads every tensor; what is wrong with one does not hide what is wrong with the next.
int run_verify(Context& context) {
  const ir::Model model = load_model(context, context.args.text("FILE"));
  std::vector<Diagnostic> problems;
  std::int64_t parameters = 0, done = 0;
  const auto all = static_cast<std::int64_t>(model.tensors().size());
  for (const ir::TensorSpec& tensor : model.tensors()) {
    cancel_point("nothing was changed");
    try {
      parameters += tensor.derived ? 0 : model.read(tensor.name).count();
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::Model) throw;
      problems.insert(problems.end(), error.diagnostics().begin(), error.diagnostics().end());
    }
    context.term.progress({.what = "reading", .done = ++done, .of = all});
  }
  context.term.end_progress();
  if (!problems.empty()) throw Error(ErrorKind::Model, std::move(problems));
  const std::string hash = model.content_hash();
  if (context.term.json()) {
    context.term.document(context.command, {{"model", model.source()}, {"family", model.family()}, {"container", model.container()},
                                     {"tensors", all}, {"parameters", parameters}, {"content_hash", hash}});
  } else {
    context.term.text(fmt::format("{}: {} ({}), {} tensors, {} parameters, all finite; content {}", model.source(), model.family(),
                                  model.container(), all, parameters, hash.substr(0, 16)));
  }
  return kDone;
}

}  // namespace

Command inspect_command() {
  return {.name = "inspect",
          .summary = "show what is in a model, from its headers",
          .loads = Loads::Headers,
          .run = run_inspect,
          .shares = {.json = true, .plain = true},
          .positionals = {{.name = "MODEL", .help = "A Hugging Face folder, a GGUF file, or hf:org/name from the local cache."}},
          .examples = {{"slmc inspect models/smollm2-135m-instruct.gguf", "sizes, bytes by type, cost per token"},
                       {"slmc inspect hf:HuggingFaceTB/SmolLM2-135M --json", "the same for scripts"}},
          .json = {{"model", "where it was loaded from"},
                   {"family", "architecture family: llama, qwen2, .."},
                   {"container", "hf or gguf"},
                   {"parameters", "a tied head counts once"},
                   {"parameters_body", "without embedding, positions and head"},
                   {"file_bytes", "of the GGUF file, or of the folder's .safetensors files"},
                   {"types", "by stored type: tensors, parameters, bytes"},
                   {"flops_per_token", "forward pass at 512 tokens of context"},
                   {"kv_bytes_per_token", "16-bit keys and values"},
                   {"context", "longest sequence the model was made for, tokens"},
                   {"tied_head", "whether the head is the embedding"},
                   {"sizes", "vocab, hidden, pos, blocks: [{kv, q, freq, pass, vd, ffn}]"},
                   {"tokenizer", "tokens and hash, or null"},
                   {"shape_hash", "equal for models that take each other's plans"},
                   {"lineage", "stages that made it"}}};
}

Command verify_command() {
  return {.name = "verify",
          .summary = "read everything in a model and check it: sizes, layouts, no NaN, no infinity",
          .loads = Loads::Headers,
          .run = run_verify,
          .shares = {.json = true},
          .positionals = {{.name = "FILE", .help = "A Hugging Face folder or a GGUF file."}},
          .examples = {{"slmc verify out/model.gguf", "before it is shipped"}},
          .json = {{"model", "where it was loaded from"},
                   {"family", "architecture family"},
                   {"container", "hf or gguf"},
                   {"tensors", "how many were read"},
                   {"parameters", "how many were read"},
                   {"content_hash", "of all values, config and tokenizer"}}};
}

}  // namespace slmc::cli
